import path from 'node:path';
import { fileURLToPath } from 'node:url';

export const benchmarks = path.dirname(path.dirname(fileURLToPath(import.meta.url)));
export const root = path.dirname(benchmarks);
/** Checkpoints, exported graphs and peers; not under version control. */
export const cache = path.join(benchmarks, '.cache');
/** A checkpoint of kilobytes, for runs that only show that a benchmark works. */
export const tinyCheckpoint = path.join(root, 'test', 'fixtures', 'checkpoints', 'naflex_hd64');
