/**
 * Training of SigLIP 2 models: from fresh weights or from a checkpoint, in batches of any size.
 * @module siglip2/training
 */
export type { Device, DType } from '../device.js';
export { SiglipError, type SiglipErrorCode } from '../errors.js';
export type { PositivePairs } from '../kernels/positive-pairs.js';
export type { PreparedImages, PreparedTexts, TrainingBatch } from './batch.js';
export * from './data/index.js';
export {
  type EvaluationOptions,
  evaluateRetrieval,
  evaluateZeroShot,
  type LabelledImage,
  type LabelledImages,
  type SkippedPictures,
} from './evaluate.js';
export {
  type AtRank,
  type RetrievalMetrics,
  retrievalMetrics,
  type ZeroShotMetrics,
  type ZeroShotOptions,
  zeroShotAccuracy,
} from './evaluation.js';
export type { InitializationOptions } from './initial-values.js';
export type { OptimizerOptions, ParameterGroup, ParameterPattern, TrainerOptions } from './options.js';
export type { ConstantSchedule, CosineSchedule, Schedule, StretchedSchedule } from './schedule.js';
export type { JsonValue, ResumeOptions } from './state.js';
export { type StepMetrics, Trainer, type TrainingMemory } from './trainer.js';
