/** Which model made a file of embeddings: a small file beside it, so that embeddings of two models are never compared. */
import type { DType } from '../device.js';
import { fingerprint } from '../model/fingerprint.js';
import type { ModelSummary } from './model.js';

/** What `FILE.origin.json` says of the embeddings in `FILE`. */
export interface EmbeddingOrigin {
  /** The model as it was named: a folder or hub id. */
  model: string;
  /** Commit of the hub's repository. */
  revision?: string;
  /** See {@link fingerprint}; what embeddings are told apart by. */
  fingerprint: string;
  /** What the model computed in. Embeddings of different types may be compared; older files do not say. */
  dtype?: DType;
  kind: 'images' | 'texts';
}

/** The name of the file that says where the embeddings of `file` come from. */
export function originFileOf(file: string): string {
  return `${file}.origin.json`;
}

/** The origin of embeddings that the model in `folder` makes when it computes in `dtype`. */
export async function originOf(
  { model, revision }: ModelSummary,
  folder: string,
  dtype: DType,
  kind: EmbeddingOrigin['kind'],
): Promise<EmbeddingOrigin> {
  return {
    model,
    ...(revision === undefined ? {} : { revision }),
    fingerprint: await fingerprint(folder),
    dtype,
    kind,
  };
}
