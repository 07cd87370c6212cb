// The built package, in both module formats, and work for it. Shared by the programs of this folder.
import { createRequire } from 'node:module';
import path from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';

export const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..', '..', '..');
const require = createRequire(import.meta.url);
const dist = path.join(root, 'dist');

/** Loads both formats of the package. */
export async function loadPackage() {
  const load = (file) => import(pathToFileURL(path.join(dist, 'esm', file)).href);
  const esm = { ...(await load('index.js')), kernels: await load('kernels/index.js') };
  const cjs = {
    ...require(path.join(dist, 'cjs', 'index.js')),
    kernels: require(path.join(dist, 'cjs', 'kernels', 'index.js')),
  };
  return { esm, cjs };
}

/** How many copies of the addon this thread has loaded. */
export function countBinaries() {
  return Object.keys(require.cache).filter((file) => file.endsWith('siglip2.node')).length;
}

/** The addon as lib/ sees it. */
export async function loadNative() {
  const { native } = await import(pathToFileURL(path.join(dist, 'esm', 'native.js')).href);
  return native();
}

export function ramp(count, period = 97) {
  return Float32Array.from({ length: count }, (_, i) => ((i * 31) % period) / period - 0.5);
}

/** Vision input of `images` pictures for a model of either architecture. */
export function visionInput(config, images, [rows, columns] = [4, 4]) {
  const { patchSize, imageSize } = config.vision;
  if (config.architecture === 'fixed') {
    const shape = [images, 3, imageSize, imageSize];
    return { pixelValues: ramp(images * 3 * imageSize ** 2), shape };
  }
  const patches = rows * columns;
  const patchDim = 3 * patchSize ** 2;
  return {
    patches: ramp(images * patches * patchDim),
    shape: [images, patches, patchDim],
    mask: new Int32Array(images * patches).fill(1),
    spatialShapes: Int32Array.from({ length: 2 * images }, (_, i) => (i % 2 === 0 ? rows : columns)),
  };
}

export function textInput(config, texts) {
  const { maxPositionEmbeddings: length, vocabSize } = config.text;
  return [Int32Array.from({ length: texts * length }, (_, i) => (i * 13) % vocabSize), [texts, length]];
}

/** Some of everything, all at once: both towers, kernels, tensors. Returns one number that depends on all results. */
export async function doSomeWork({ esm, cjs }, model) {
  const add = (values) => values.reduce((sum, value, i) => sum + value * ((i % 7) + 1), 0);
  const kernel = async ({ Tensor, attention, linear }) => {
    const query = Tensor.from(ramp(128 * 4 * 32), [128, 4, 32]);
    const input = Tensor.from(ramp(64 * 96), [64, 96]);
    const results = await Promise.all([
      attention({ query, key: query, value: query }),
      linear({ input, weight: input, activation: 'gelu' }),
    ]);
    return add(await results[0].output.read()) + add(await results[1].output.read());
  };
  const parts = await Promise.all([
    model.vision.forward(visionInput(model.config, 3)).then((result) => add(result.pooled.data)),
    model.text.forward(...textInput(model.config, 3)).then((result) => add(result.pooled.data)),
    kernel(esm.kernels),
    kernel(cjs.kernels),
  ]);
  return parts.reduce((sum, part) => sum + part, 0);
}

/** One operation that takes a second or so: an attention over very many tokens. */
export function doLongWork({ Tensor, attention }) {
  const query = Tensor.from(ramp(6144 * 8 * 64), [6144, 8, 64]);
  return attention({ query, key: query, value: query });
}
