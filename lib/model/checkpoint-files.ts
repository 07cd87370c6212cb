/** A checkpoint folder's weight files: one model.safetensors, or shards listed by an index. */
import { access, readdir } from 'node:fs/promises';
import path from 'node:path';
import { describe } from '../arguments.js';
import { SiglipError } from '../errors.js';
import type { Siglip2Config, Tower } from './config.js';
import { isJsonObject, readJsonFile } from './json.js';
import { parameterShapes } from './parameter-shapes.js';
import {
  maximumHeaderBytes,
  readSafetensorsHeader,
  type SafetensorsEntry,
  type SafetensorsFile,
} from './safetensors.js';

/** File names of Hugging Face's layout. */
export const weightsFileName = 'model.safetensors';
export const weightsIndexName = 'model.safetensors.index.json';

/** A tensor and the file that holds it. */
export interface CheckpointTensor extends SafetensorsEntry {
  readonly file: SafetensorsFile;
}

/** The weight files of a checkpoint. */
export interface CheckpointFiles {
  readonly folder: string;
  readonly files: readonly SafetensorsFile[];
  readonly tensors: ReadonlyMap<string, CheckpointTensor>;
}

const loadableDTypes = ['F32', 'F16', 'BF16'] as const;
const listedProblems = 10;

/**
 * Finds and validates the weight files of a checkpoint folder, reading only headers. As in transformers, `model.safetensors`
 * is taken when there is one, else the shards that `model.safetensors.index.json` names.
 *
 * @throws SiglipError ERR_SIGLIP_CHECKPOINT naming what was looked for, what is missing or what is damaged
 */
export async function openCheckpointFiles(folder: string): Promise<CheckpointFiles> {
  const single = path.join(folder, weightsFileName);
  if (await exists(single)) {
    const file = await readSafetensorsHeader(single);
    return {
      folder,
      files: [file],
      tensors: new Map([...file.tensors].map(([name, entry]) => [name, { ...entry, file }])),
    };
  }
  const indexFile = path.join(folder, weightsIndexName);
  const index = await readJsonFile(indexFile, 'ERR_SIGLIP_CHECKPOINT', maximumHeaderBytes);
  if (index === undefined) throw await nothingFound(folder);
  return openShards(folder, indexFile, parseWeightMap(index, indexFile));
}

async function exists(file: string): Promise<boolean> {
  return access(file).then(
    () => true,
    () => false,
  );
}

async function nothingFound(folder: string): Promise<SiglipError> {
  let message = `${folder} has no weights: neither ${weightsFileName} nor ${weightsIndexName} is there`;
  const names = await readdir(folder).catch((): string[] => []);
  const others = names.filter((name) => /\.(bin|pt|pth|npz|h5|msgpack|onnx|gguf|safetensors)$/.test(name)).sort();
  if (others.length > 0)
    message += `; ${others.slice(0, 5).join(', ')} cannot be read: convert to safetensors in Hugging Face layout`;
  return new SiglipError('ERR_SIGLIP_CHECKPOINT', message, { details: { folder, found: others } });
}

/** Tensor name → shard file name, each a plain name of a file next to the index. */
function parseWeightMap(index: unknown, indexFile: string): Map<string, string> {
  const bad = (what: string): SiglipError =>
    new SiglipError('ERR_SIGLIP_CHECKPOINT', `${indexFile}: ${what}`, { details: { file: indexFile } });
  const weightMap = isJsonObject(index) && Object.hasOwn(index, 'weight_map') ? index.weight_map : undefined;
  if (!isJsonObject(weightMap)) throw bad('weight_map, an object of tensor names and shard files, is missing');
  const entries = Object.entries(weightMap);
  if (entries.length === 0) throw bad('weight_map is empty');
  for (const [tensor, shard] of entries)
    if (typeof shard !== 'string' || !/^[^/\\:\0]+\.safetensors$/.test(shard))
      throw bad(`tensor ${describe(tensor)} is in ${describe(shard)}, which is not the name of a .safetensors file`);
  return new Map(entries as [string, string][]);
}

async function openShards(folder: string, indexFile: string, weightMap: Map<string, string>): Promise<CheckpointFiles> {
  const files = new Map<string, SafetensorsFile>();
  for (const shard of new Set(weightMap.values())) {
    const file = path.join(folder, shard);
    if (!(await exists(file)))
      throw new SiglipError('ERR_SIGLIP_CHECKPOINT', `${file} is missing: ${indexFile} lists it`, {
        details: { file, index: indexFile },
      });
    files.set(shard, await readSafetensorsHeader(file));
  }
  const tensors = new Map<string, CheckpointTensor>();
  for (const [name, shard] of weightMap) {
    const file = files.get(shard)!;
    const entry = file.tensors.get(name);
    if (entry === undefined)
      throw new SiglipError(
        'ERR_SIGLIP_CHECKPOINT',
        `${file.path} lacks tensor ${describe(name)}: ${indexFile} says it is there`,
        {
          details: { file: file.path, index: indexFile, tensor: name },
        },
      );
    tensors.set(name, { ...entry, file });
  }
  addUnlisted(tensors, files.values(), indexFile);
  return { folder, files: [...files.values()], tensors };
}

/** Like transformers, uses tensors of the shards that the index leaves out, unless two shards differ about one. */
function addUnlisted(
  tensors: Map<string, CheckpointTensor>,
  files: Iterable<SafetensorsFile>,
  indexFile: string,
): void {
  const listed = new Set(tensors.keys());
  for (const file of files)
    for (const [name, entry] of file.tensors) {
      if (listed.has(name)) continue;
      const other = tensors.get(name)?.file;
      if (other !== undefined)
        throw new SiglipError(
          'ERR_SIGLIP_CHECKPOINT',
          `tensor ${describe(name)} is in both ${other.path} and ${file.path}, and ${indexFile} does not list it`,
          { details: { files: [other.path, file.path], index: indexFile, tensor: name } },
        );
      tensors.set(name, { ...entry, file });
    }
}

/** Shapes by tensor name, for {@link reconcileConfig}. */
export function tensorShapes(files: CheckpointFiles): Map<string, readonly number[]> {
  return new Map([...files.tensors].map(([name, { shape }]) => [name, shape]));
}

/**
 * Checks that a checkpoint has every parameter that the towers need, with the right shape and a dtype that can be loaded
 * (F32, F16, BF16). Tensors beyond those are fine.
 *
 * @returns names of tensors that no part of the whole model uses, without the position_ids of old files
 * @throws SiglipError ERR_SIGLIP_CHECKPOINT with the first ten problems; `details.problems` has them all
 */
export function checkParameters(
  config: Siglip2Config,
  files: CheckpointFiles,
  towers: readonly Tower[] = ['vision', 'text'],
): string[] {
  const problems: string[] = [];
  for (const [name, expected] of parameterShapes(config, towers)) {
    const tensor = files.tensors.get(name);
    if (tensor === undefined) problems.push(`${name} is missing`);
    else if (tensor.shape.length !== expected.length || tensor.shape.some((size, axis) => size !== expected[axis]))
      problems.push(`${name} has shape [${tensor.shape.join(', ')}], expected [${expected.join(', ')}]`);
    else if (!(loadableDTypes as readonly string[]).includes(tensor.dtype))
      problems.push(`${name} has dtype ${tensor.dtype}, supported are ${loadableDTypes.join(', ')}`);
  }
  if (problems.length > 0) {
    const rest = problems.length - listedProblems;
    const list = [...problems.slice(0, listedProblems), ...(rest > 0 ? [`and ${rest} more`] : [])];
    throw new SiglipError('ERR_SIGLIP_CHECKPOINT', `the weights in ${files.folder} do not fit: ${list.join('; ')}`, {
      details: { folder: files.folder, problems },
    });
  }
  const known = parameterShapes(config);
  return [...files.tensors.keys()].filter((name) => !known.has(name) && !name.endsWith('.position_ids'));
}
