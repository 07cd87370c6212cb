import {
  requireBoolean,
  requireInteger,
  requireOptions,
  requireString,
  throwIfAborted,
  wrongType,
} from '../arguments.js';
import type { DType } from '../device.js';
import { SiglipError } from '../errors.js';
import { type ModelHandle, type NativeForwardOptions, native, withCancellation } from '../native.js';
import {
  type DecodeLimits,
  decodeImages,
  decodeLimitNames,
  decodeOptionsOf,
  type ImageInput,
  type RawImage,
} from '../processing/decode.js';
import { nativeImages, resolveMaxPatches } from '../processing/prepare.js';
import { imageSources } from '../processing/source.js';
import { Tokenizer } from '../processing/tokenizer.js';
import type { Siglip2Config } from './config.js';
import { type Embeddings, joinEmbeddings, requireEmbeddings } from './embeddings.js';
import {
  checkForwardOptions,
  checkTextInput,
  type ForwardOptions,
  type ForwardOutput,
  packVisionInput,
  toForwardOutput,
  type VisionForwardInput,
} from './forward.js';
import { checkLoadOptions, type LoadedModel, type LoadOptions, loadModel } from './load.js';
import { averageGroups, checkTemplates, labelTexts } from './prompts.js';
import { type SaveOptions, saveModel } from './save.js';

/** Options of {@link Siglip2.embedImages}. */
export interface EmbedImagesOptions extends DecodeLimits {
  /** NaFlex only: most patches an image may have; default 256. */
  maxPatches?: number;
  /** Scale embeddings to unit length; default true. */
  normalize?: boolean;
  /** Images that go through the model together; default 8. Results do not depend on it. */
  batchSize?: number;
  signal?: AbortSignal;
  /** Called after every batch. */
  onProgress?: (done: number, total: number) => void;
}

/** Options of {@link Siglip2.embedTexts}. */
export interface EmbedTextsOptions {
  /** Scale embeddings to unit length; default true. */
  normalize?: boolean;
  /** Texts that go through the model together; default 32. Results do not depend on it. */
  batchSize?: number;
  signal?: AbortSignal;
  /** Called after every batch. */
  onProgress?: (done: number, total: number) => void;
}

/** Options of {@link Siglip2.denseFeatures}. */
export interface DenseFeaturesOptions extends DecodeLimits {
  /** NaFlex only: most patches an image may have; default 256. */
  maxPatches?: number;
  /** 0 for the embeddings, n for the output of layer n; default: after the final layer norm. */
  layer?: number;
  signal?: AbortSignal;
}

/** Options of {@link Siglip2.classify}. */
export interface ClassifyOptions extends DecodeLimits {
  /** Prompt with `{}` for the label, or several whose embeddings are averaged; default `This is a photo of {}.` */
  template?: string | string[];
  /** NaFlex only: most patches the image may have; default 256. */
  maxPatches?: number;
  signal?: AbortSignal;
}

/** One label of {@link Siglip2.classify}. */
export interface Classification {
  label: string;
  /** σ(logit): how probable it is that image and label belong together; labels do not compete. */
  probability: number;
  logit: number;
}

const pooledOnly = { pooled: true, lastHiddenState: false, hiddenStates: false } as const;

/** A SigLIP 2 model: one or both towers on one device. */
export class Siglip2 {
  /** The checkpoint's configuration, with every default filled in. */
  readonly config: Siglip2Config;
  readonly device: string;
  /** What the model computes in; with `dtype: 'auto'`, what that has chosen. */
  readonly dtype: DType;
  /**
   * What a person should know about how the checkpoint was read, a sentence each: where the tensors overruled
   * config.json, or that the hub could not be asked whether the copy in the cache is the newest. Usually empty.
   */
  readonly notices: readonly string[];

  readonly #loaded: LoadedModel;
  #model: ModelHandle | undefined;
  #tokenizer: Promise<Tokenizer> | undefined;

  private constructor(loaded: LoadedModel) {
    this.#loaded = loaded;
    this.#model = loaded.model;
    this.config = loaded.config;
    this.device = loaded.device;
    this.dtype = loaded.dtype;
    this.notices = loaded.notices;
  }

  /**
   * Loads a checkpoint in Hugging Face layout.
   * @param source a folder, a `file:` URL, or a hub id `organisation/name`
   * @throws SiglipError ERR_SIGLIP_CONFIG, ERR_SIGLIP_CHECKPOINT for files that are missing, damaged or do not fit;
   *   ERR_SIGLIP_HUB, ERR_SIGLIP_OFFLINE for downloads; ERR_SIGLIP_NO_DEVICE, ERR_SIGLIP_OUT_OF_MEMORY,
   *   ERR_SIGLIP_ABORTED
   */
  static async load(source: string | URL, options?: LoadOptions): Promise<Siglip2> {
    return new Siglip2(await loadModel(source, checkLoadOptions(options)));
  }

  /**
   * A model around one that is already in the native core.
   * @internal
   */
  static fromLoaded(loaded: LoadedModel): Siglip2 {
    return new Siglip2(loaded);
  }

  /**
   * What the model was made from.
   * @internal
   */
  loaded(): LoadedModel {
    this.#handle();
    return this.#loaded;
  }

  /** Logarithm of the similarity's scale, as stored. */
  get logitScale(): number {
    return this.#loaded.scalars.logitScale;
  }

  /** Offset of the similarity's logits, as stored. */
  get logitBias(): number {
    return this.#loaded.scalars.logitBias;
  }

  /**
   * Embeddings of pictures, [images, hiddenSize]. Decoding of the next batch overlaps the model's work.
   * @throws SiglipError ERR_SIGLIP_IMAGE for a picture that cannot be read, naming it
   */
  async embedImages(images: ImageInput | ImageInput[], options?: EmbedImagesOptions): Promise<Embeddings> {
    const checked = requireOptions('options', options, [
      'maxPatches',
      'normalize',
      'batchSize',
      ...decodeLimitNames,
      'signal',
      'onProgress',
    ]);
    const { signal, onProgress } = checked;
    const normalize = requireBoolean('options.normalize', checked.normalize ?? true);
    const maxPatches = resolveMaxPatches('options.maxPatches', this.config, checked.maxPatches);
    const batchSize = requireInteger('options.batchSize', checked.batchSize ?? 8, 1);
    const parts: Float32Array[] = [];
    let done = 0;
    for await (const { decoded, total } of this.#decodedBatches(images, batchSize, checked)) {
      const result = await this.#runImages(decoded, maxPatches, { ...pooledOnly, normalize }, signal);
      parts.push(result.pooled);
      done += decoded.length;
      onProgress?.(done, total);
    }
    return joinEmbeddings(parts, this.config.vision.hiddenSize);
  }

  /**
   * Embeddings of texts, [texts, projectionSize], with SigLIP 2's text rules (see docs/text.md).
   * @throws TypeError naming the text that is no string
   */
  async embedTexts(texts: string | string[], options?: EmbedTextsOptions): Promise<Embeddings> {
    const checked = requireOptions('options', options, ['normalize', 'batchSize', 'signal', 'onProgress']);
    const { signal, onProgress } = checked;
    const normalize = requireBoolean('options.normalize', checked.normalize ?? true);
    const batchSize = requireInteger('options.batchSize', checked.batchSize ?? 32, 1);
    const model = this.#handle();
    throwIfAborted(signal);
    // As they are now: the caller may change the list while the tokenizer is loaded.
    const list = Array.isArray(texts) ? [...texts] : texts;
    const { inputIds, shape } = (await this.#loadTokenizer()).encode(list);
    const [count, length] = shape;
    const parts: Float32Array[] = [];
    for (let start = 0; start < count; start += batchSize) {
      const end = Math.min(start + batchSize, count);
      const ids = inputIds.subarray(start * length, end * length);
      const request = { ...pooledOnly, normalize };
      const result = await withCancellation(signal, (token) =>
        native().textForward(model, ids, length, request, token),
      );
      parts.push(result.pooled);
      onProgress?.(end, count);
    }
    return joinEmbeddings(parts, this.config.text.projectionSize);
  }

  /** Per-patch features of pictures, for segmentation, localisation and VLM front ends: one [rows, cols, dim] each. */
  async denseFeatures(
    images: ImageInput | ImageInput[],
    options?: DenseFeaturesOptions,
  ): Promise<{ data: Float32Array; shape: [rows: number, cols: number, dim: number] }[]> {
    const checked = requireOptions('options', options, ['maxPatches', 'layer', ...decodeLimitNames, 'signal']);
    const maxPatches = resolveMaxPatches('options.maxPatches', this.config, checked.maxPatches);
    const { hiddenSize, numHiddenLayers } = this.config.vision;
    const layer = checked.layer === undefined ? -1 : requireInteger('options.layer', checked.layer, 0, numHiddenLayers);
    const request = { pooled: false, normalize: false, lastHiddenState: layer < 0, hiddenStates: false };
    const features: { data: Float32Array; shape: [number, number, number] }[] = [];
    for await (const { decoded } of this.#decodedBatches(images, 8, checked)) {
      const result = await this.#runImages(decoded, maxPatches, request, checked.signal, layer);
      const states = layer < 0 ? result.lastHiddenState : (result.hiddenStates[0] as Float32Array);
      let offset = 0;
      for (let i = 0; i < result.spatialShapes.length; i += 2) {
        const [rows, columns] = result.spatialShapes.subarray(i, i + 2) as unknown as [number, number];
        const size = rows * columns * hiddenSize;
        features.push({ data: states.slice(offset, offset + size), shape: [rows, columns, hiddenSize] });
        offset += size;
      }
    }
    return features;
  }

  /**
   * exp(logitScale) · cosine + logitBias and its sigmoid, [images, texts] row-major. Inputs need not be normalised.
   */
  similarity(
    images: Embeddings,
    texts: Embeddings,
  ): { logits: Float32Array; probabilities: Float32Array; shape: [images: number, texts: number] } {
    this.#handle();
    const left = requireEmbeddings('images', images);
    const right = requireEmbeddings('texts', texts);
    const rows = left.shape[0];
    const columns = right.shape[0];
    if (rows > 0 && columns > 0 && left.shape[1] !== right.shape[1])
      throw new SiglipError(
        'ERR_SIGLIP_SHAPE',
        `texts: expected embeddings of width ${left.shape[1]}, as the images', got ${right.shape[1]}`,
      );
    const shape: [number, number] = [rows, columns];
    if (rows === 0 || columns === 0) return { logits: new Float32Array(0), probabilities: new Float32Array(0), shape };
    const result = native().similarity(left.data, right.data, left.shape[1], this.logitScale, this.logitBias);
    return { ...result, shape };
  }

  /** How well each label describes a picture, best first. Probabilities are independent and usually small. */
  async classify(image: ImageInput, labels: string[], options?: ClassifyOptions): Promise<Classification[]> {
    const checked = requireOptions('options', options, ['template', 'maxPatches', ...decodeLimitNames, 'signal']);
    if (!Array.isArray(labels)) throw wrongType('labels', 'an array of strings', labels);
    // As they are now, whatever the caller does with the list meanwhile; Array.from also visits holes.
    const named = Array.from(labels, (label, index) => requireString(`labels[${index}]`, label));
    const templates = checkTemplates(checked.template);
    if (Array.isArray(image)) throw wrongType('image', 'one image', image);
    const { template: _, ...imageOptions } = checked;
    const [picture, texts] = await Promise.all([
      this.embedImages(image, imageOptions),
      this.embedTexts(labelTexts(named, templates), checked.signal === undefined ? {} : { signal: checked.signal }),
    ]);
    const { logits, probabilities } = this.similarity(picture, averageGroups(texts, templates.length));
    return named
      .map((label, i) => ({ label, probability: probabilities[i] as number, logit: logits[i] as number }))
      .sort((a, b) => b.logit - a.logit);
  }

  /** The image tower at tensor level. */
  readonly vision = {
    forward: async (input: VisionForwardInput, options?: ForwardOptions): Promise<ForwardOutput> => {
      const { signal, hiddenStates = false } = checkForwardOptions(options);
      const model = this.#handle();
      const packed = packVisionInput(this.config, input);
      const { hiddenSize, numHiddenLayers, useHead } = this.config.vision;
      const request = { pooled: useHead, normalize: false, lastHiddenState: true, hiddenStates, layer: -1 };
      const result = await withCancellation(signal, (token) =>
        native().visionForward(model, packed.native, request, token),
      );
      const states = hiddenStates ? numHiddenLayers + 1 : 0;
      return toForwardOutput(result, packed.layout, hiddenSize, hiddenSize, states);
    },
  };

  /** The text tower at tensor level. */
  readonly text = {
    forward: async (
      inputIds: Int32Array,
      shape: [n: number, length: number],
      options?: ForwardOptions,
    ): Promise<ForwardOutput> => {
      const { signal, hiddenStates = false } = checkForwardOptions(options);
      const model = this.#handle();
      const length = checkTextInput(this.config, inputIds, shape);
      const request = { pooled: true, normalize: false, lastHiddenState: true, hiddenStates };
      const result = await withCancellation(signal, (token) =>
        native().textForward(model, inputIds, length, request, token),
      );
      const { hiddenSize, numHiddenLayers, projectionSize } = this.config.text;
      const layout = { tokens: new Array<number>(shape[0]).fill(length), padded: length };
      const states = hiddenStates ? numHiddenLayers + 1 : 0;
      return toForwardOutput(result, layout, hiddenSize, projectionSize, states);
    },
  };

  /**
   * Writes the checkpoint in Hugging Face layout: weights of the loaded towers, configuration, tokenizer. Unless
   * `dtype` asks for another type, weights are bit-identical to the checkpoint's, whatever the model computes in.
   */
  async save(folder: string, options?: SaveOptions): Promise<void> {
    this.#handle();
    await saveModel(this.#loaded, folder, options);
  }

  /** Frees the model as soon as running work is done. A second call does nothing. */
  dispose(): void {
    if (this.#model === undefined) return;
    this.#model = undefined;
    native().release(this.#loaded.model);
    if (this.#loaded.weights.checkpoint !== undefined) native().release(this.#loaded.weights.checkpoint);
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  #handle(): ModelHandle {
    if (this.#model === undefined)
      throw new SiglipError('ERR_SIGLIP_DISPOSED', 'the model has been disposed and cannot be used any more');
    return this.#model;
  }

  /**
   * The checkpoint's tokenizer, loaded on first use.
   * @internal
   */
  tokenizer(): Promise<Tokenizer> {
    this.#handle();
    return this.#loadTokenizer();
  }

  async #loadTokenizer(): Promise<Tokenizer> {
    if (!this.#loaded.towers.includes('text'))
      throw new SiglipError('ERR_SIGLIP_UNSUPPORTED', 'the text tower was not loaded (see the towers option)');
    if (this.#loaded.folder === undefined)
      throw new SiglipError('ERR_SIGLIP_TOKENIZER', 'this model was made from a configuration, without a tokenizer');
    this.#tokenizer ??= loadTokenizer(this.#loaded.folder, this.config);
    const loading = this.#tokenizer;
    try {
      return await loading;
    } catch (error) {
      // The next call tries again: what was missing may be there by then.
      if (this.#tokenizer === loading) this.#tokenizer = undefined;
      throw error;
    }
  }

  async #runImages(
    decoded: RawImage[],
    maxPatches: number,
    request: NativeForwardOptions,
    signal: AbortSignal | undefined,
    layer = -1,
  ) {
    const model = this.#handle();
    const input = { kind: 'images', ...nativeImages(this.config, decoded, maxPatches) } as const;
    return withCancellation(signal, (token) => native().visionForward(model, input, { ...request, layer }, token));
  }

  /** Decodes pictures a batch at a time, one batch ahead of the consumer. */
  async *#decodedBatches(
    images: ImageInput | ImageInput[],
    batchSize: number,
    options: DecodeLimits & { signal?: AbortSignal },
  ): AsyncGenerator<{ decoded: RawImage[]; total: number }> {
    this.#handle();
    // As they are now, whatever the caller does with the list meanwhile; all checked before the first is read.
    const list = Array.isArray(images) ? [...images] : images;
    imageSources(list, 'images', 0);
    const total = Array.isArray(list) ? list.length : 1;
    const decode = async (start: number): Promise<RawImage[]> => {
      throwIfAborted(options.signal);
      return decodeImages(Array.isArray(list) ? list.slice(start, start + batchSize) : list, {
        ...decodeOptionsOf(options),
        firstIndex: start,
      });
    };
    let next = decode(0);
    // Nothing to yield, but options may still be wrong, or the signal may have fired.
    if (total === 0) await next;
    for (let start = 0; start < total; start += batchSize) {
      const decoded = await next;
      if (start + batchSize < total) {
        next = decode(start + batchSize);
        // Its failure is reported when it is awaited; until then it must not count as unhandled.
        next.catch(() => {});
      }
      yield { decoded, total };
    }
  }
}

async function loadTokenizer(folder: string, config: Siglip2Config): Promise<Tokenizer> {
  const { maxPositionEmbeddings, vocabSize } = config.text;
  const tokenizer = await Tokenizer.fromFolder(folder, { length: maxPositionEmbeddings });
  if (tokenizer.vocabSize > vocabSize)
    throw new SiglipError(
      'ERR_SIGLIP_TOKENIZER',
      `${folder}: the tokenizer has ${tokenizer.vocabSize} ids, but the model knows only ${vocabSize}`,
      { details: { folder, tokenizer: tokenizer.vocabSize, model: vocabSize } },
    );
  return tokenizer;
}
