/** Which model made a file of embeddings: a small file beside it, so that embeddings of two models are never compared. */
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
  kind: 'images' | 'texts';
}

/** The name of the file that says where the embeddings of `file` come from. */
export function originFileOf(file: string): string {
  return `${file}.origin.json`;
}

/** The origin of embeddings that the model in `folder` makes. */
export async function originOf(
  { model, revision }: ModelSummary,
  folder: string,
  kind: EmbeddingOrigin['kind'],
): Promise<EmbeddingOrigin> {
  return { model, ...(revision === undefined ? {} : { revision }), fingerprint: await fingerprint(folder), kind };
}
