/** The picture preprocessing of a checkpoint, from its `preprocessor_config.json`. */
import { describe } from '../arguments.js';
import { SiglipError } from '../errors.js';
import type { Architecture, VisionConfig } from './config.js';
import { isJsonObject, JsonFields } from './json.js';

/** How a picture's pixels become the vision tower's input: resize, then (value · rescaleFactor − mean) / std per channel. */
export interface PreprocessingConfig {
  readonly imageMean: readonly [number, number, number];
  readonly imageStd: readonly [number, number, number];
  readonly rescaleFactor: number;
  readonly resample: 'bilinear' | 'bicubic';
  /** 'fixed' only: the size every picture is resized to, in pixels. */
  readonly size?: { readonly height: number; readonly width: number };
  /** 'naflex' only: the most patches a picture is resized to, unless the caller says otherwise. */
  readonly maxNumPatches?: number;
  /** 'naflex' only: height and width of a patch, in pixels. */
  readonly patchSize?: number;
}

const resampleNames = ['nearest', 'lanczos', 'bilinear', 'bicubic', 'box', 'hamming'] as const;
const maximumNumPatches = 1_048_576;
const maximumImageSize = 16_384;

/**
 * Validates preprocessing settings. Without a file these are SigLIP 2's own (bilinear, mean and deviation 0.5). A file that
 * leaves a key out means the default of transformers' image processor, which for fixed resolution is bicubic resampling.
 *
 * @param json the parsed file, `undefined` when there is none
 * @param where names the file in errors
 * @throws SiglipError ERR_SIGLIP_CONFIG for wrong values, ERR_SIGLIP_UNSUPPORTED for resamplers, crops and sizes that are
 *   valid but not available here
 */
export function parsePreprocessing(
  json: unknown,
  where: string,
  architecture: Architecture,
  vision: Pick<VisionConfig, 'imageSize' | 'patchSize'>,
): PreprocessingConfig {
  if (json !== undefined && !isJsonObject(json))
    throw new SiglipError('ERR_SIGLIP_CONFIG', `${where}: expected a JSON object, got ${describe(json)}`, {
      details: { file: where },
    });
  const fields = new JsonFields(json ?? {}, where);
  const unsupported = (field: string, value: string, available: string): SiglipError =>
    new SiglipError('ERR_SIGLIP_UNSUPPORTED', `${where}: ${field} ${value} is not supported; available: ${available}`, {
      details: { file: where, field },
    });

  if (!fields.boolean('do_resize', true)) throw unsupported('do_resize', 'false', 'true');
  if (fields.boolean('do_center_crop', false)) throw unsupported('do_center_crop', 'true', 'false');

  const resample = fields.get('resample') ?? (json === undefined || architecture === 'naflex' ? 2 : 3);
  if (typeof resample !== 'number' || resampleNames[resample] === undefined)
    throw fields.wrong('resample', "one of Pillow's resampling numbers, 0 to 5", resample);
  const resampleName = resampleNames[resample];
  if (resampleName !== 'bilinear' && resampleName !== 'bicubic')
    throw unsupported('resample', `${resample} (${resampleName})`, '2 (bilinear), 3 (bicubic)');

  const normalize = fields.boolean('do_normalize', true);
  const imageMean = parseChannels(fields, 'image_mean', (value) => Number.isFinite(value), 'finite numbers');
  const imageStd = parseChannels(fields, 'image_std', (value) => value > 0 && value < Infinity, 'numbers above 0');
  const rescaleFactor = fields.positiveNumber('rescale_factor', 1 / 255);
  const common = {
    imageMean: normalize ? imageMean : ([0, 0, 0] as const),
    imageStd: normalize ? imageStd : ([1, 1, 1] as const),
    rescaleFactor: fields.boolean('do_rescale', true) ? rescaleFactor : 1,
    resample: resampleName,
  };
  if (architecture === 'naflex')
    return {
      ...common,
      maxNumPatches: fields.integer('max_num_patches', 256, maximumNumPatches),
      patchSize: fields.integer('patch_size', vision.patchSize, maximumImageSize),
    };
  return { ...common, size: parseSize(fields, vision.imageSize ?? 224, unsupported) };
}

function parseSize(
  fields: JsonFields,
  imageSize: number,
  unsupported: (field: string, value: string, available: string) => SiglipError,
): { height: number; width: number } {
  const value = fields.get('size');
  if (value === undefined) return { height: imageSize, width: imageSize };
  if (!isJsonObject(value)) {
    const side = fields.squareInteger('size', imageSize, maximumImageSize);
    return { height: side, width: side };
  }
  const size = fields.section('size');
  if (size.get('height') === undefined || size.get('width') === undefined)
    throw unsupported('size', JSON.stringify(value).slice(0, 80), '{"height": …, "width": …} or a number');
  return {
    height: size.integer('height', imageSize, maximumImageSize),
    width: size.integer('width', imageSize, maximumImageSize),
  };
}

function parseChannels(
  fields: JsonFields,
  key: string,
  accepts: (value: number) => boolean,
  expected: string,
): readonly [number, number, number] {
  const value = fields.get(key) ?? 0.5;
  const channels: unknown[] = Array.isArray(value) ? value : [value, value, value];
  const [red, green, blue] = channels;
  const good = (channel: unknown): channel is number => typeof channel === 'number' && accepts(channel);
  if (channels.length !== 3 || !good(red) || !good(green) || !good(blue))
    throw fields.wrong(key, `three ${expected}, or one`, Array.isArray(value) ? JSON.stringify(value) : value);
  return [red, green, blue];
}
