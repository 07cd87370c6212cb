import { types } from 'node:util';
import { requireInteger, wrongType } from '../arguments.js';
import { SiglipError } from '../errors.js';
import { configLimits } from '../model/config.js';
import { requireTensorShape } from './attention.js';
import { type KernelOptions, runKernel } from './run.js';
import type { Tensor } from './tensor.js';

/**
 * Gradients of {@link tokenEmbedding}: rows of `gradOutput` summed by token and by position, without loss of precision
 * however many there are.
 * @param args ids [texts · length] as in the forward pass; gradOutput [texts · length, width], float32 or bfloat16;
 *   vocabularySize, the rows of the table; length, the rows of the positions
 * @returns float32: gradTable [vocabularySize, width], zero for tokens that do not occur; gradPositions [length, width]
 * @throws SiglipError ERR_SIGLIP_SHAPE for an id outside the table, or when shapes do not fit
 */
export async function tokenEmbeddingBackward(
  args: { ids: Int32Array; gradOutput: Tensor; vocabularySize: number; length: number } & KernelOptions,
): Promise<{ gradTable: Tensor; gradPositions: Tensor }> {
  const gradOutput = requireTensorShape('args.gradOutput', args?.gradOutput, 2);
  const { ids } = args;
  if (!types.isInt32Array(ids)) throw wrongType('args.ids', 'an Int32Array', ids);
  const vocabularySize = requireInteger('args.vocabularySize', args.vocabularySize, 1, configLimits.vocabSize);
  const length = requireInteger('args.length', args.length, 1, configLimits.maxPositionEmbeddings);
  if (ids.length !== gradOutput.shape[0] || ids.length % length !== 0)
    throw new SiglipError(
      'ERR_SIGLIP_SHAPE',
      `args.ids: expected one id for each of the ${gradOutput.shape[0]} rows of gradOutput, a multiple of ${length}, ` +
        `got ${ids.length}`,
    );
  const wrong = ids.findIndex((id) => id < 0 || id >= vocabularySize);
  if (wrong !== -1)
    throw new SiglipError(
      'ERR_SIGLIP_SHAPE',
      `args.ids[${wrong}]: expected an id from 0 to ${vocabularySize - 1}, got ${ids[wrong]}`,
    );
  const values = { ids, vocabularySize, length };
  const { gradTable, gradPositions } = await runKernel('tokenEmbeddingBackward', args, ['gradOutput'], values);
  return { gradTable: gradTable as Tensor, gradPositions: gradPositions as Tensor };
}

/**
 * Gradient of {@link positionEmbedding}: every image's token gradients, resized back to the table's grid by the
 * transpose of the forward pass's filter, and summed over images.
 * @param args gradTokens [Σ rows·columns, width], float32 or bfloat16; spatialShapes: rows and columns for every image; tableShape:
 *   rows and columns of the table
 * @returns gradTable [rows, columns, width], float32
 * @throws SiglipError ERR_SIGLIP_SHAPE when the grids have not as many patches as gradTokens has rows
 */
export async function positionEmbeddingBackward(
  args: { gradTokens: Tensor; spatialShapes: Int32Array; tableShape: readonly [number, number] } & KernelOptions,
): Promise<{ gradTable: Tensor }> {
  requireTensorShape('args.gradTokens', args?.gradTokens, 2);
  const { spatialShapes, tableShape } = args;
  if (!types.isInt32Array(spatialShapes)) throw wrongType('args.spatialShapes', 'an Int32Array', spatialShapes);
  if (!Array.isArray(tableShape) || tableShape.length !== 2)
    throw wrongType('args.tableShape', 'an array of rows and columns', tableShape);
  tableShape.forEach((size, axis) => {
    requireInteger(`args.tableShape[${axis}]`, size, 1, configLimits.numPatches);
  });
  const { gradTable } = await runKernel('positionEmbeddingBackward', args, ['gradTokens'], {
    spatialShapes,
    tableShape,
  });
  return { gradTable: gradTable as Tensor };
}
