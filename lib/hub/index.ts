/** Finding and downloading checkpoints. */
export {
  type CheckpointFile,
  type DownloadedCheckpoint,
  downloadCheckpoint,
  type ResolvedCheckpoint,
  resolveCheckpoint,
} from './checkpoint.js';
export type { HubErrorDetails } from './http.js';
export type { CheckpointOptions, DownloadProgress, HubOptions, RetryOptions } from './settings.js';
