import path from 'node:path';
import loader from '../native-loader.cjs';

/**
 * The folder of the model that comes with the package: a small multilingual NaFlex model of emoji pictures, for trying
 * things out and for tests, with nothing to download. Pass it to `Siglip2.load`. It knows drawings of single things and
 * short texts, no photographs and no sentences; `google/siglip2-base-patch16-naflex` knows those.
 *
 * It was trained with fewer patches than the 256 that `maxPatches` defaults to: pass
 * `maxPatches: model.config.vision.numPatches` to calls that take pictures.
 */
export const defaultModel: string = path.join(loader.packageRoot, 'models', 'siglip2-emoji');

/** The prompt of classification with {@link defaultModel}: it has read words, and never "This is a photo of". */
export const defaultModelTemplate = '{}';
