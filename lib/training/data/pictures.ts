/** From an example to the picture that is trained on: decoded, and changed at random where that is asked for. */
import { decodeImage, decodeImageWithAlpha, type RawImage } from '../../processing/decode.js';
import { type Augmentation, type AugmentOptions, augmentation } from './augment.js';
import { ByteStore } from './byte-store.js';
import type { Example, Place } from './example.js';
import { purposes, RandomStream } from './random.js';
import { type LayerPyramid, layerPyramid } from './warp.js';

/** Decodes pictures, keeps some of them decoded, and changes them at random. */
export class PictureReader {
  private readonly augment: Augmentation | undefined;
  private readonly maxPixels: number;
  private readonly store: ByteStore;
  /** By where they come from. What is full stays as it is: a data set larger than the room is read from its files anyway. */
  private readonly kept = new Map<string, LayerPyramid>();

  constructor(
    argument: string,
    private readonly seed: number,
    settings: { augment: AugmentOptions | undefined; cacheBytes: number; maxPixels: number },
  ) {
    this.augment = settings.augment === undefined ? undefined : augmentation(`${argument}.augment`, settings.augment);
    this.store = new ByteStore(settings.cacheBytes);
    this.maxPixels = settings.maxPixels;
  }

  /** @throws SiglipError ERR_SIGLIP_IMAGE for a picture that cannot be read, ERR_SIGLIP_ABORTED */
  async read(example: Example, place: Place, signal: AbortSignal | undefined): Promise<RawImage> {
    const options = { maxPixels: this.maxPixels, ...(signal === undefined ? {} : { signal }) };
    if (this.augment === undefined) return decodeImage(example.image, options);
    const random = new RandomStream(this.seed, purposes.augmentation, ...place);
    return this.augment.draw(await this.picture(example, this.augment, options), random);
  }

  private async picture(
    { image, source }: Example,
    augment: Augmentation,
    options: { maxPixels: number; signal?: AbortSignal },
  ): Promise<LayerPyramid> {
    const kept = this.kept.get(source);
    if (kept !== undefined) return kept;
    const { data, width, height } = await decodeImageWithAlpha(image, options);
    const picture = layerPyramid(data, width, height, augment.smallestLevel(width, height));
    const copy = this.store.keep(picture.data);
    if (copy !== undefined) this.kept.set(source, { ...picture, data: copy });
    return picture;
  }
}
