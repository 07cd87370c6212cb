/** What must hold for any input of the checkpoint readers. A violation throws an ordinary Error. */
import { isDeepStrictEqual } from 'node:util';
import { SiglipError } from '../../lib/errors.js';
import { checkConfig, configLimits, parseConfig, type Siglip2Config } from '../../lib/model/config.js';
import { parseJson } from '../../lib/model/json.js';
import { parameterShapes } from '../../lib/model/parameter-shapes.js';
import { configToJson, reconcileConfig } from '../../lib/model/reconcile-config.js';
import { parseSafetensorsHeader, safetensorsDTypes } from '../../lib/model/safetensors.js';
import { mutateText, mutateValue, nastyValues, type Random } from './random.js';

/** An input of a reader, in a form that can be stored. */
export interface FuzzInput {
  reader: keyof typeof readers;
  /** Text of the input: a header, a JSON file, or the JSON of `[config, preprocessor, shapes]`. */
  text: string;
  /** Safetensors only: the length that the file claims for its header, and the bytes of the whole file. */
  claimedBytes?: number;
  fileBytes?: number;
}

/** Each runs one input and says whether the reader accepted it. */
export const readers = { safetensors: runSafetensors, json: runJson, config: runConfig };

/** `undefined` when the reader refused with a SiglipError; any other error is a defect and passes through. */
function accepted<T>(action: () => T): T | undefined {
  try {
    return action();
  } catch (error) {
    if (error instanceof SiglipError && error.message.length < 2000) return undefined;
    throw error;
  }
}

function demand(condition: boolean, property: string): void {
  if (!condition) throw new Error(`violated: ${property}`);
}

const bits = {
  F4: 4n,
  F6_E2M3: 6n,
  F6_E3M2: 6n,
  F16: 16n,
  BF16: 16n,
  I16: 16n,
  U16: 16n,
  F32: 32n,
  I32: 32n,
  U32: 32n,
} as Record<string, bigint>;
const wideTypes = ['F64', 'I64', 'U64', 'C64'];

function runSafetensors({ text, claimedBytes, fileBytes = 0 }: FuzzInput): boolean {
  const header = Buffer.from(text);
  const bytes = Buffer.alloc(8 + header.length);
  bytes.writeBigUInt64LE(BigInt(claimedBytes ?? header.length));
  header.copy(bytes, 8);
  const file = accepted(() => parseSafetensorsHeader(bytes.subarray(0, fileBytes), fileBytes, 'fuzz'));
  if (file === undefined) return false;
  demand(
    file.size === fileBytes && file.dataOffset >= 8 && file.dataOffset <= fileBytes,
    'the data starts in the file',
  );
  let position = file.dataOffset;
  for (const [, { dtype, shape, begin, end }] of file.tensors) {
    demand(begin === position && end >= begin && end <= fileBytes, 'ranges follow each other inside the file');
    const elements = shape.reduce((product, size) => product * BigInt(size), 1n);
    const width = bits[dtype] ?? (wideTypes.includes(dtype) ? 64n : 8n);
    demand(elements * width === BigInt(end - begin) * 8n, 'a range has the size of its shape');
    position = end;
  }
  demand(position === fileBytes, 'ranges cover the file');
  const names = Object.keys(JSON.parse(bytes.subarray(8, file.dataOffset).toString('utf8'))).filter(
    (name) => name !== '__metadata__',
  );
  demand(isDeepStrictEqual(names.sort(), [...file.tensors.keys()].sort()), 'every tensor of the header is there');
  return true;
}

function runJson({ text }: FuzzInput): boolean {
  const value = accepted(() => [parseJson(text, 'fuzz', 'ERR_SIGLIP_CONFIG')]);
  let expected: unknown[] | undefined;
  try {
    expected = [JSON.parse(text)];
  } catch {
    expected = undefined;
  }
  const deep = (text.match(/[[{]/g)?.length ?? 0) > 128;
  demand(deep || isDeepStrictEqual(value, expected), 'JSON is what JSON.parse accepts');
  const strict = accepted(() => [parseJson(text, 'fuzz', 'ERR_SIGLIP_CONFIG', { strict: true })]);
  demand(strict === undefined || isDeepStrictEqual(strict, expected), 'strict JSON is JSON');
  return value !== undefined;
}

function runConfig({ text }: FuzzInput): boolean {
  const [json, preprocessor, shapes] = JSON.parse(text) as [unknown, unknown, [string, number[]][]];
  const settings =
    preprocessor === undefined || preprocessor === null ? undefined : { json: preprocessor, where: 'fuzz.p' };
  const config = accepted(() => parseConfig(json, 'fuzz', settings));
  if (config === undefined) return false;
  demandInBounds(config);
  const reconciled = accepted(() => reconcileConfig(config, new Map(shapes)))?.config;
  if (reconciled === undefined) return false;
  demandInBounds(reconciled);
  checkConfig(reconciled);
  for (const [name, shape] of parameterShapes({ ...reconciled, vision: { ...reconciled.vision, numHiddenLayers: 1 } }, [
    'vision',
  ]))
    demand(
      shape.every((size) => Number.isSafeInteger(size) && size > 0),
      `${name} has a shape`,
    );
  const saved = configToJson(reconciled);
  const again = parseConfig(saved.config, 'saved', { json: saved.preprocessor, where: 'saved.p' });
  const comparable = settings === undefined ? { ...again, preprocessing: reconciled.preprocessing } : again;
  demand(
    isDeepStrictEqual({ ...comparable, json: 0 }, { ...reconciled, json: 0 }),
    'a saved configuration reads the same',
  );
  return true;
}

function demandInBounds({ vision, text, preprocessing }: Siglip2Config): void {
  for (const tower of [vision, text])
    for (const [key, value] of Object.entries(tower)) {
      if (typeof value !== 'number') continue;
      const limit = configLimits[key as keyof typeof configLimits] ?? configLimits.hiddenSize;
      if (key === 'layerNormEps') demand(Number.isFinite(value) && value > 0, key);
      else demand(Number.isInteger(value) && value >= 1 && value <= limit, key);
    }
  const { imageMean, imageStd, rescaleFactor, size, maxNumPatches, patchSize } = preprocessing;
  demand([...imageMean, ...imageStd, rescaleFactor].every(Number.isFinite), 'finite preprocessing');
  demand(imageStd.every((value) => value > 0) && rescaleFactor > 0, 'positive preprocessing');
  for (const value of [size?.height ?? 1, size?.width ?? 1, maxNumPatches ?? 1, patchSize ?? 1])
    demand(Number.isInteger(value) && value >= 1 && value <= configLimits.numPatches, 'bounded preprocessing');
}

/** Makes a random input: a valid one in about one of six cases, else a damaged one. */
export function generateInput(random: Random): FuzzInput {
  const kind = random.below(4);
  if (kind === 0) return generateJson(random);
  return kind === 1 ? generateConfig(random) : generateSafetensors(random);
}

function generateSafetensors(random: Random): FuzzInput {
  const entries: Record<string, unknown> = {};
  if (random.chance(2)) entries.__metadata__ = { format: 'pt' };
  let offset = 0;
  const names = ['a', 'b', 'c', 'logit_scale', '__proto__', 'constructor', 'é', ''];
  for (let count = random.below(5); count > 0; count--) {
    const dtype = random.pick(safetensorsDTypes);
    const shape = Array.from({ length: random.below(4) }, () => 4 * random.below(5));
    const elements = shape.reduce((product, size) => product * size, 1);
    const width = Number(bits[dtype] ?? (wideTypes.includes(dtype) ? 64n : 8n));
    if ((elements * width) % 8 !== 0) continue;
    const end = offset + (elements * width) / 8;
    const entry = { dtype, shape, data_offsets: [offset, end] };
    const name = random.pick(names);
    if (Object.hasOwn(entries, name)) continue;
    Object.defineProperty(entries, name, { value: entry, enumerable: true, writable: true, configurable: true });
    offset = end;
  }
  let json: unknown = entries;
  const damage = random.below(6);
  if (damage === 1 || damage === 2) json = mutateValue(random, json);
  let text = JSON.stringify(json) + ' '.repeat(random.below(3));
  if (damage === 3 || damage === 4) text = mutateText(random, text);
  const headerBytes = Buffer.byteLength(text);
  const fileBytes = 8 + headerBytes + offset;
  if (damage !== 5) return { reader: 'safetensors', text, fileBytes };
  const off = random.pick([-9, -8, -1, 0, 1, 7, 8, 1000]);
  return random.chance(2)
    ? { reader: 'safetensors', text, fileBytes: Math.max(0, fileBytes + off) }
    : { reader: 'safetensors', text, fileBytes, claimedBytes: Math.max(0, random.pick([headerBytes + off, 2 ** 53])) };
}

function generateJson(random: Random): FuzzInput {
  const value = mutateValue(
    random,
    mutateValue(random, { a: [1, 'b', { c: null }], d: nastyValues, e: { __proto: [] } }),
  );
  const text = JSON.stringify(value, null, random.below(3));
  return { reader: 'json', text: random.chance(6) ? text : mutateText(random, text.slice(0, 1 + random.below(400))) };
}

const preprocessors = [
  undefined,
  {
    resample: 2,
    size: { height: 64, width: 64 },
    image_mean: [0.5, 0.5, 0.5],
    image_std: [0.5, 0.5, 0.5],
    rescale_factor: 1 / 255,
  },
  { resample: 3, max_num_patches: 64, patch_size: 16, do_normalize: true, do_rescale: true, do_resize: true },
];

const tower = {
  hidden_size: 64,
  num_attention_heads: 2,
  num_hidden_layers: 2,
  intermediate_size: 96,
  layer_norm_eps: 1e-6,
};
const validConfigs = ['siglip', 'siglip2'].map((model_type) => ({
  model_type,
  architectures: ['SiglipModel'],
  text_config: { ...tower, vocab_size: 512, projection_size: 64, hidden_act: 'gelu_pytorch_tanh' },
  vision_config: { ...tower, image_size: 64, patch_size: 16, num_channels: 3, num_patches: 256, vision_use_head: true },
}));
/** Only the tensors that tell sizes, and a few more. */
const validShapes = validConfigs.map((config) =>
  [...parameterShapes(parseConfig(config, 'valid'))].filter(
    ([name], i) => /embedding|head|layers\.[01]\.mlp\.fc1/.test(name) || i % 9 === 0,
  ),
);

function generateConfig(random: Random): FuzzInput {
  const which = random.below(2);
  const damaged = <T>(part: T): unknown => (part !== undefined && random.chance(3) ? mutateValue(random, part) : part);
  const config = damaged(validConfigs[which]);
  const preprocessor = damaged(random.pick(preprocessors));
  const shapes = validShapes[random.chance(20) ? 1 - which : which]!;
  const otherShapes = random.chance(3) ? (mutateValue(random, shapes) as unknown[]).filter(isShapeEntry) : shapes;
  return { reader: 'config', text: JSON.stringify([config, preprocessor, otherShapes]) };
}

/** Shapes reach the configuration only from validated headers, so those of the inputs are valid shapes too. */
function isShapeEntry(entry: unknown): boolean {
  const [name, shape] = Array.isArray(entry) ? entry : [];
  return (
    typeof name === 'string' && Array.isArray(shape) && shape.every((size) => Number.isSafeInteger(size) && size >= 0)
  );
}
