/** Reading pictures with captions for training. */
export type { AugmentOptions, BackgroundKind } from './augment.js';
export { type Batch, type BatchOptions, batches, defaultSequenceLengths, type NaflexBatchOptions } from './batches.js';
export {
  Dataset,
  type DatasetOptions,
  type DatasetSource,
  type FolderSource,
  openDataset,
  type ShardSource,
  type SkippedExamples,
} from './dataset.js';
export type { Example, Skip } from './example.js';
export type { DatasetPosition } from './position.js';
