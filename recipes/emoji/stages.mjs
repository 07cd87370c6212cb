// The stages of the training, and their configurations with folders and seeds.
import { readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseDocument } from 'yaml';

const folder = fileURLToPath(new URL('stages', import.meta.url));

/** Names of the stages in their order, which begin with their number. */
export const stages = readdirSync(folder)
  .map((file) => path.basename(file, '.yaml'))
  .sort();

/** Stages whose ends the model is the mean of. */
export const averagedStages = ['5-together', '6-together', '7-languages'];

/**
 * What `siglip2 train` reads. `data.shards` of a stage's file names one of the sets that data/shards.mjs makes.
 *
 * @param {string} stage one of {@link stages}
 * @param {object} place
 * @param {string} place.cache with the shards
 * @param {number} place.seed of the whole training; every stage draws anew
 * @param {{ config: string } | { checkpoint: string }} place.model a folder to start from
 * @returns {string} YAML
 */
export function stageConfiguration(stage, { cache, seed, model }) {
  const config = parseDocument(readFileSync(path.join(folder, `${stage}.yaml`), 'utf8'));
  config.setIn(['model'], model);
  config.setIn(['data', 'shards'], path.join(cache, 'shards', String(config.getIn(['data', 'shards'])), '*.tar'));
  config.setIn(['training', 'seed'], 100 * seed + Number.parseInt(stage, 10));
  return String(config);
}
