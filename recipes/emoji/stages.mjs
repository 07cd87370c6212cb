// The stages of the training, and their configurations with folders and seeds.
import { readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseDocument } from 'yaml';

const folder = fileURLToPath(new URL('stages', import.meta.url));

/** Stages that learn from English texts alone. */
const englishStages = 2;

/** Names of the stages in their order, which begin with their number. */
export const stages = readdirSync(folder)
  .map((file) => path.basename(file, '.yaml'))
  .sort();

/**
 * What `siglip2 train` reads.
 *
 * @param {string} stage one of {@link stages}
 * @param {object} place
 * @param {string} place.cache with the shards
 * @param {string} place.set of shards: final or development
 * @param {number} place.seed of the whole training; every stage draws anew
 * @param {{ config: string } | { checkpoint: string }} place.model a folder to start from
 * @returns {string} YAML
 */
export function stageConfiguration(stage, { cache, set, seed, model }) {
  const config = parseDocument(readFileSync(path.join(folder, `${stage}.yaml`), 'utf8'));
  const number = Number.parseInt(stage, 10);
  config.setIn(['model'], model);
  config.setIn(
    ['data', 'shards'],
    path.join(cache, 'shards', number <= englishStages ? `${set}-english` : set, '*.tar'),
  );
  config.setIn(['training', 'seed'], 100 * seed + number);
  return String(config);
}
