/**
 * Saved trainings. One file, `training_state.safetensors`, holds everything that continuing needs: weights, moments,
 * averages, settings and progress. It is replaced by one rename, so a folder always holds one whole training. The model
 * in Hugging Face layout lies beside it, for everybody else.
 */
import { mkdir, readdir, rm } from 'node:fs/promises';
import path from 'node:path';
import { requireOptions } from '../arguments.js';
import { SiglipError } from '../errors.js';
import { parseConfig, type Siglip2Config } from '../model/config.js';
import { isJsonObject, type JsonObject, parseJson } from '../model/json.js';
import type { LoadedModel } from '../model/load.js';
import { parameterShapes } from '../model/parameter-shapes.js';
import { configToJson } from '../model/reconcile-config.js';
import { readSafetensorsHeader, type SafetensorsFile } from '../model/safetensors.js';
import { type TensorSource, writeSafetensors } from '../model/safetensors-writer.js';
import { saveModel } from '../model/save.js';
import { StagedFiles } from '../model/staged-files.js';
import {
  type CheckpointHandle,
  type NativeParameterPart,
  type NativeParameterSetting,
  native,
  type TrainerHandle,
} from '../native.js';
import { checkTrainerOptions, type TrainerOptions, type TrainerSettings } from './options.js';
import type { Schedule } from './schedule.js';

/** Anything that JSON can hold. */
export type JsonValue = null | boolean | number | string | readonly JsonValue[] | { readonly [key: string]: JsonValue };

/**
 * Options of `Trainer.resume`: what may differ from the training that was saved. What is left out, or `undefined`, is as it
 * was there; `microBatches: 1` has a batch go through the towers as a whole again.
 */
export type ResumeOptions = Pick<
  TrainerOptions,
  'device' | 'dtype' | 'threads' | 'schedule' | 'microBatchSize' | 'microBatches' | 'checkpointing' | 'tokenizer'
>;

const resumeOptions = [
  'device',
  'dtype',
  'threads',
  'schedule',
  'microBatchSize',
  'microBatches',
  'checkpointing',
  'tokenizer',
];

/** How far a training has come. */
export interface TrainerProgress {
  /** Steps taken. */
  step: number;
  /** Steps that changed the parameters. */
  updates: number;
  /** What the user keeps with the training. */
  state: JsonValue | undefined;
}

/** What is written. */
export interface TrainerState {
  handle: TrainerHandle;
  model: LoadedModel;
  settings: TrainerSettings;
  parameters: readonly NativeParameterSetting[];
  progress: TrainerProgress;
}

const stateName = 'training_state.safetensors';
const metadataKey = 'siglip2_training';
const formatVersion = 1;
const touchedRows = 'touched_rows';
const tokenTable = 'text_model.embeddings.token_embedding.weight';
/** What an interrupted save leaves, its small files included. A training has its folder to itself: nobody else writes. */
const leftovers =
  /^\.((training_state|model(-\d{5,}-of-\d{5,})?)\.safetensors|[\w.-]+\.(json|model))\.[0-9a-f]{12}\.(new|old)$/;

/** The tensors of a part have names of their own; see native/train/parameter_store.cc. */
const partNames = {
  value: 'parameter',
  firstMoment: 'first_moment',
  secondMoment: 'second_moment',
  average: 'average',
} as const;

type SavedPart = keyof typeof partNames;

function partsOf(setting: { trainable: boolean }, average: boolean): SavedPart[] {
  if (!setting.trainable) return ['value'];
  return average ? ['value', 'firstMoment', 'secondMoment', 'average'] : ['value', 'firstMoment', 'secondMoment'];
}

/** Writes a training into a folder; see `Trainer.save`. */
export async function writeState(folder: string, state: TrainerState): Promise<void> {
  const staged = new StagedFiles(folder);
  try {
    await mkdir(folder, { recursive: true });
    await removeLeftovers(folder);
    const metadata = { format: 'pt', [metadataKey]: JSON.stringify(describeState(state)) };
    const tensors = await stateTensors(state);
    // The largest file first: when the disk is full, nothing has been replaced yet.
    await staged.write(stateName, (handle) => writeSafetensors(handle, tensors, undefined, metadata));
    await saveModel(state.model, folder);
    await staged.place(stateName, stateName);
    await staged.sync();
  } catch (cause) {
    await staged.undo();
    if (cause instanceof SiglipError) throw cause;
    throw new SiglipError('ERR_SIGLIP_CHECKPOINT', `${folder} cannot be saved: ${(cause as Error).message}`, {
      details: { folder },
      cause,
    });
  }
}

async function removeLeftovers(folder: string): Promise<void> {
  for (const name of await readdir(folder))
    if (leftovers.test(name)) await rm(path.join(folder, name), { force: true });
}

async function stateTensors({ handle, settings, parameters }: TrainerState): Promise<TensorSource[]> {
  const tensors = parameters.flatMap((setting) =>
    partsOf(setting, settings.ema !== undefined).map(
      (part): TensorSource => ({
        name: `${partNames[part]}/${setting.name}`,
        dtype: 'F32',
        shape: setting.shape,
        read: () => native().readParameter(handle, setting.name, part satisfies NativeParameterPart, 'F32'),
      }),
    ),
  );
  const touched = await native().touchedRows(handle);
  const bytes = new Uint8Array(touched.buffer, touched.byteOffset, touched.byteLength);
  if (touched.length > 0)
    tensors.push({ name: touchedRows, dtype: 'F32', shape: [touched.length], read: async () => bytes });
  return tensors;
}

function describeState({ model, settings, parameters, progress }: TrainerState): JsonObject {
  const { optimizer, schedule, microBatchSize, microBatches, checkpointing, seed, ema } = settings;
  return {
    version: formatVersion,
    model: configToJson(model.config),
    settings: {
      optimizer,
      schedule: typeof schedule === 'function' ? null : schedule,
      microBatchSize,
      microBatches,
      checkpointing,
      seed,
      ema,
    },
    parameters: Object.fromEntries(
      parameters.map(({ name, trainable, learningRateScale, decayScale }) => [
        name,
        [trainable, learningRateScale, decayScale],
      ]),
    ),
    progress,
  };
}

/** A training that was saved, with its file mapped. */
export interface SavedTraining {
  config: Siglip2Config;
  settings: TrainerSettings;
  parameters: NativeParameterSetting[];
  checkpoint: CheckpointHandle;
  progress: TrainerProgress;
}

/** Reads what `writeState` wrote; see `Trainer.resume`. The caller releases the checkpoint. */
export async function readState(folder: string, options: ResumeOptions | undefined): Promise<SavedTraining> {
  const given = requireOptions('options', options, resumeOptions);
  const where = path.join(folder, stateName);
  const file = await readSafetensorsHeader(where);
  const text = file.metadata.get(metadataKey);
  if (text === undefined) throw damaged(where, `is not a saved training: its metadata lack ${metadataKey}`);
  const json = parseJson(text, where, 'ERR_SIGLIP_CHECKPOINT', { part: metadataKey });
  if (!isJsonObject(json)) throw damaged(where, `${metadataKey} is not a JSON object`);
  if (json.version !== formatVersion)
    throw damaged(where, `is of version ${String(json.version)}; this package reads version ${formatVersion}`);
  const { model, settings, parameters, progress } = json;
  if (!isJsonObject(model) || !isJsonObject(settings) || !isJsonObject(parameters) || !isJsonObject(progress))
    throw damaged(where, `${metadataKey} is incomplete`);

  const config = parseConfig(model.config, where, { json: model.preprocessor, where });
  const checked = savedSettings(where, settings, given);
  const settingsOf = savedParameters(where, config, parameters);
  checkTensors(file, settingsOf, checked.ema !== undefined);
  const { step, updates } = progress;
  if (!isCount(step) || !isCount(updates) || updates > step) throw damaged(where, 'its progress makes no sense');
  const checkpoint = native().openCheckpoint([
    {
      path: where,
      tensors: [...file.tensors].map(([name, { dtype, shape, begin, end }]) => ({
        name,
        dtype,
        shape: [...shape],
        begin,
        end,
      })),
    },
  ]);
  const state = progress.state as JsonValue | undefined;
  return { config, settings: checked, parameters: settingsOf, checkpoint, progress: { step, updates, state } };
}

function damaged(file: string, what: string, details: Record<string, unknown> = {}): SiglipError {
  return new SiglipError('ERR_SIGLIP_CHECKPOINT', `${file}: ${what}`, { details: { file, ...details } });
}

function isCount(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}

/** The saved settings under those that the user gives now; an option that is `undefined` is not given. */
function savedSettings(where: string, saved: JsonObject, options: ResumeOptions): TrainerSettings {
  const given: ResumeOptions = Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined));
  if (saved.schedule === null && given.schedule === undefined)
    throw new SiglipError(
      'ERR_SIGLIP_CONFIG',
      `${where}: the schedule of this training was a function, which cannot be saved; give it as options.schedule`,
    );
  const divided = given.microBatchSize !== undefined || given.microBatches !== undefined;
  const { microBatchSize, microBatches, ...rest } = saved;
  const merged = {
    ...rest,
    ...(divided ? {} : { microBatchSize, microBatches }),
    schedule: saved.schedule as Schedule,
    ...given,
  };
  return checkTrainerOptions(merged as TrainerOptions);
}

function savedParameters(where: string, config: Siglip2Config, saved: JsonObject): NativeParameterSetting[] {
  return [...parameterShapes(config)].map(([name, shape]) => {
    const setting = Object.hasOwn(saved, name) ? saved[name] : undefined;
    const [trainable, learningRateScale, decayScale] = Array.isArray(setting) ? setting : [];
    if (typeof trainable !== 'boolean' || typeof learningRateScale !== 'number' || typeof decayScale !== 'number')
      throw damaged(where, `says nothing of parameter ${name}`, { parameter: name });
    // The values come from the file, whatever the initialisation would be.
    const initialization = { kind: 'constant', scale: 0 } as const;
    return { name, shape, trainable, learningRateScale, decayScale, initialization };
  });
}

/** Every tensor that is needed must be there, in its parameter's shape. */
function checkTensors(file: SafetensorsFile, parameters: readonly NativeParameterSetting[], average: boolean): void {
  const check = (name: string, shape: readonly number[], parameter: string): void => {
    const tensor = file.tensors.get(name);
    const found = tensor === undefined ? 'nothing' : `[${tensor.shape.join(', ')}]`;
    const expected = `[${shape.join(', ')}]`;
    if (found !== expected || tensor?.dtype !== 'F32')
      throw damaged(file.path, `${name} should be F32 ${expected}, but there is ${found}`, {
        parameter,
        expected: [...shape],
        actual: tensor === undefined ? undefined : [...tensor.shape],
      });
  };
  for (const setting of parameters)
    for (const part of partsOf(setting, average))
      check(`${partNames[part]}/${setting.name}`, setting.shape, setting.name);
  const table = parameters.find(({ name }) => name === tokenTable);
  if (table?.trainable) check(touchedRows, [table.shape[0] as number], tokenTable);
}
