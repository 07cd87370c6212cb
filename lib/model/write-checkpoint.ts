/** Saving a checkpoint in Hugging Face's layout, without ever leaving a folder with half of one. */
import { access, link, mkdir, readdir, readFile, rename, rm, rmdir, stat } from 'node:fs/promises';
import path from 'node:path';
import { describe, requireInteger, throwIfAborted } from '../arguments.js';
import { SiglipError } from '../errors.js';
import { weightsFileName, weightsIndexName } from './checkpoint-files.js';
import type { JsonObject } from './json.js';
import { sourceBytes, type TensorSource, writeSafetensors } from './safetensors-writer.js';
import { StagedFiles } from './staged-files.js';

/** What a checkpoint consists of. */
export interface CheckpointContent {
  /** `config.json`. */
  readonly configJson: JsonObject;
  /** `preprocessor_config.json`. */
  readonly preprocessorJson?: JsonObject;
  /** Files to copy, such as `tokenizer.json`. */
  readonly tokenizerFiles?: readonly { readonly name: string; readonly path: string }[];
  readonly tensors: readonly TensorSource[];
  /** Weights beyond this are split into several files; without it there is one. A larger tensor has a file of its own. */
  readonly maxShardBytes?: number;
  readonly signal?: AbortSignal;
}

const configName = 'config.json';
const preprocessorName = 'preprocessor_config.json';
/** Where transformers 5 keeps preprocessing settings, which then precede those of `preprocessor_config.json`. */
const processorName = 'processor_config.json';
const reservedNames = /^((pre)?processor_config\.json|config\.json|.*\.safetensors(\.index\.json)?)$/;
const shardPattern = /^model-\d{5,}-of-\d{5,}(\.[0-9a-f]{12})?\.safetensors$/;

/** Folders that this process is writing to, and when the last writer of each will be done. */
const writers = new Map<string, Promise<void>>();

/**
 * Writes a checkpoint into a folder, which is created when it is missing. Everything is written to temporary files of the
 * folder first; then the small files are replaced, and then one rename or removal makes the new weights the ones that a
 * reader finds. So the weights in force are at every moment completely the old or completely the new ones, and a failure
 * before that moment restores the folder. Weight files of the checkpoint that was there are removed last. Checkpoints that
 * one process writes to one folder are written one after the other, and the last one stays.
 *
 * @throws SiglipError ERR_SIGLIP_CHECKPOINT when the folder cannot be written or a tensor's source fails to give its bytes
 *   (with the cause), ERR_SIGLIP_ABORTED when the signal fires; errors of a tensor's source that are SiglipErrors pass through
 */
export async function writeCheckpoint(folder: string, content: CheckpointContent): Promise<void> {
  throwIfAborted(content.signal);
  const place = path.resolve(folder);
  const written = (writers.get(place) ?? Promise.resolve()).then(() => writeAlone(folder, content));
  const done = written.catch(() => undefined);
  writers.set(place, done);
  try {
    await written;
  } finally {
    if (writers.get(place) === done) writers.delete(place);
  }
}

async function writeAlone(folder: string, content: CheckpointContent): Promise<void> {
  const { signal } = content;
  throwIfAborted(signal);
  const shards = splitIntoShards(content);
  const created = await makeFolder(folder);
  // What is there now: shards that come later are another process's, and not stale.
  const earlier = await shardFiles(folder);
  const staged = new StagedFiles(folder);
  try {
    const smallFiles = await stageSmallFiles(staged, content);
    for (const [name, tensors] of shards)
      await staged.write(name, (handle) => writeSafetensors(handle, tensors, signal));
    throwIfAborted(signal);
    for (const name of smallFiles) await staged.replace(name);
    const finalShards = shards.size === 1 ? await switchToSingle(staged) : await switchToShards(staged, shards);
    if (content.preprocessorJson !== undefined)
      await rm(path.join(folder, processorName), { force: true }).catch(() => undefined);
    // One that cannot be removed does no harm: no reader looks for it any more.
    for (const name of earlier)
      if (!finalShards.has(name)) await rm(path.join(folder, name), { force: true }).catch(() => undefined);
    await staged.finish();
    await staged.sync();
  } catch (cause) {
    await staged.undo();
    await removeEmptyFolders(folder, created);
    if (cause instanceof SiglipError) throw cause;
    throwIfAborted(signal);
    throw new SiglipError('ERR_SIGLIP_CHECKPOINT', `${folder} cannot be saved: ${(cause as Error).message}`, {
      details: { folder },
      cause,
    });
  }
}

/** Tensors by file, filled in the given order; a tensor above the limit has a file of its own. */
function splitIntoShards({ tensors, maxShardBytes }: CheckpointContent): Map<string, TensorSource[]> {
  const names = new Set<string>();
  for (const { name } of tensors) {
    if (names.has(name) || name === '__metadata__')
      throw new SiglipError('ERR_SIGLIP_CHECKPOINT', `two tensors cannot be named ${describe(name)}`, {
        details: { tensor: name },
      });
    names.add(name);
  }
  const limit = maxShardBytes === undefined ? Infinity : requireInteger('maxShardBytes', maxShardBytes, 1);
  const shards: TensorSource[][] = [];
  let current: TensorSource[] = [];
  let currentBytes = 0;
  for (const tensor of tensors) {
    const bytes = sourceBytes(tensor);
    if (bytes > limit) {
      shards.push([tensor]);
      continue;
    }
    if (currentBytes + bytes > limit) {
      shards.push(current);
      current = [];
      currentBytes = 0;
    }
    current.push(tensor);
    currentBytes += bytes;
  }
  if (current.length > 0 || shards.length === 0) shards.push(current);
  const digits = (number: number): string => String(number).padStart(5, '0');
  const fileName = (index: number): string =>
    shards.length === 1 ? weightsFileName : `model-${digits(index + 1)}-of-${digits(shards.length)}.safetensors`;
  return new Map(shards.map((shard, index) => [fileName(index), shard]));
}

/** Returns the topmost folder that had to be made, if any. */
async function makeFolder(folder: string): Promise<string | undefined> {
  try {
    return await mkdir(folder, { recursive: true });
  } catch (cause) {
    const isFile = await stat(folder).then(
      (found) => !found.isDirectory(),
      () => false,
    );
    const reason = isFile ? 'it is a file' : (cause as Error).message;
    throw new SiglipError('ERR_SIGLIP_CHECKPOINT', `${folder} cannot be made a folder: ${reason}`, {
      details: { folder },
      cause,
    });
  }
}

async function removeEmptyFolders(folder: string, topmost: string | undefined): Promise<void> {
  if (topmost === undefined) return;
  const top = path.resolve(topmost);
  for (let current = path.resolve(folder); current.startsWith(top); current = path.dirname(current))
    await rmdir(current).catch(() => undefined);
}

async function stageSmallFiles(staged: StagedFiles, content: CheckpointContent): Promise<string[]> {
  const { signal } = content;
  const names: string[] = [];
  const stage = async (name: string, data: string | Uint8Array): Promise<void> => {
    await staged.write(name, (handle) => handle.writeFile(data, { signal }));
    names.push(name);
  };
  for (const { name, path: source } of content.tokenizerFiles ?? []) {
    if (!/^[^/\\:\0]*[^/\\:\0.]$/.test(name) || reservedNames.test(name))
      throw new SiglipError('ERR_SIGLIP_CHECKPOINT', `${describe(name)} cannot be the name of a tokenizer file`);
    await stage(name, await readFile(source, { signal }));
  }
  await stage(configName, jsonText(content.configJson));
  if (content.preprocessorJson !== undefined) await stage(preprocessorName, jsonText(content.preprocessorJson));
  return names;
}

/** Members that transformers insists on reading as floating-point numbers: JavaScript would write 1.0 as 1. */
const wholeFloat = /^( *"(?:initializer_factor|initializer_range|layer_norm_eps|attention_dropout)": -?\d+)(?=,?$)/gm;

function jsonText(json: JsonObject): string {
  return `${JSON.stringify(json, null, 2).replace(wholeFloat, '$1.0')}\n`;
}

/** A reader takes the single file whatever else is there, so its rename is the switch. */
async function switchToSingle(staged: StagedFiles): Promise<ReadonlySet<string>> {
  await staged.sync();
  await staged.place(weightsFileName, weightsFileName);
  await rm(path.join(staged.folder, weightsIndexName), { force: true }).catch(() => undefined);
  return new Set();
}

/**
 * A reader takes what the index lists, unless there is a single file. Shards whose names are taken, perhaps by the
 * checkpoint still in force, get names of their own first; the index's rename, or the single file's removal, is the switch.
 */
async function switchToShards(
  staged: StagedFiles,
  shards: ReadonlyMap<string, readonly TensorSource[]>,
): Promise<ReadonlySet<string>> {
  const { folder, token } = staged;
  const single = path.join(folder, weightsFileName);
  const placed = new Map<string, string>();
  for (const name of shards.keys()) {
    const taken = await exists(path.join(folder, name));
    const placedName = taken ? name.replace(/\.safetensors$/, `.${token}.safetensors`) : name;
    await staged.add(name, placedName);
    placed.set(name, placedName);
  }
  await stageIndex(staged, shards, placed);
  await staged.sync();
  await staged.replace(weightsIndexName);
  if (await exists(single)) await rm(single);
  return useUsualNames(staged, shards, placed);
}

async function stageIndex(
  staged: StagedFiles,
  shards: ReadonlyMap<string, readonly TensorSource[]>,
  fileNames: ReadonlyMap<string, string>,
): Promise<void> {
  const entries = [...shards].flatMap(([name, tensors]) =>
    tensors.map((tensor): [string, string] => [tensor.name, fileNames.get(name)!]),
  );
  const totalBytes = [...shards.values()].flat().reduce((sum, tensor) => sum + sourceBytes(tensor), 0);
  const text = jsonText({
    metadata: { total_size: totalBytes },
    weight_map: Object.fromEntries(entries.sort(([left], [right]) => (left < right ? -1 : 1))),
  });
  await staged.write(weightsIndexName, (handle) => handle.writeFile(text));
}

/**
 * Gives shards that had to take other names the usual ones, under a second index, now that nothing refers to the files that
 * had them. Where the file system has no hard links the other names stay, which readers do not mind.
 */
async function useUsualNames(
  staged: StagedFiles,
  shards: ReadonlyMap<string, readonly TensorSource[]>,
  placed: ReadonlyMap<string, string>,
): Promise<ReadonlySet<string>> {
  const { folder, token } = staged;
  try {
    for (const [name, placedName] of placed) {
      if (placedName === name) continue;
      const linked = path.join(folder, `.${name}.${token}.link`);
      await link(path.join(folder, placedName), linked);
      await rename(linked, path.join(folder, name)).finally(() => rm(linked, { force: true }));
    }
    if ([...placed].some(([name, placedName]) => name !== placedName)) {
      await stageIndex(staged, shards, new Map([...shards.keys()].map((name) => [name, name])));
      await staged.sync();
      await staged.place(weightsIndexName, weightsIndexName);
    }
    return new Set(placed.keys());
  } catch {
    return new Set(placed.values());
  }
}

async function exists(file: string): Promise<boolean> {
  return access(file).then(
    () => true,
    () => false,
  );
}

async function shardFiles(folder: string): Promise<string[]> {
  const names = await readdir(folder).catch((): string[] => []);
  return names.filter((name) => shardPattern.test(name));
}
