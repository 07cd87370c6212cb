/** Starts the contestants that this machine has, and says why others are missing. */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { Contestant } from './contestant.mjs';
import { benchmarks, cache } from './paths.mjs';

export const peerOptions = {
  checkpoint: { type: 'string' },
  peers: { type: 'string', default: 'onnxruntime,transformers.js,torch,torch compiled' },
  python: { type: 'string', default: process.env.SIGLIP2_BENCHMARK_PYTHON ?? 'python3' },
};

const peerFile = (name) => path.join(benchmarks, 'peers', name);

/** A place where contestants exchange tensors, and those that were started there; `close()` must be called. */
export function openContest() {
  const folder = mkdtempSync(path.join(os.tmpdir(), 'siglip2-benchmark-'));
  const started = [];
  const descriptions = {};
  return {
    /** What contestants say of themselves, by name. */
    descriptions,
    /** Starts a program and has it load what the settings say. */
    async start(name, { command, args }, settings) {
      const contestant = new Contestant(name, command, args, folder);
      started.push(contestant);
      descriptions[name] = (await contestant.load(settings)).description;
      return contestant;
    },
    async close() {
      await Promise.all(started.map((contestant) => contestant.close()));
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

/** This package in a process of its own: a program of the folder of benchmarks. */
export function ownProgram(file) {
  return { command: process.execPath, args: ['--expose-gc', path.join(benchmarks, file)] };
}

/** A program of the folder of peers that needs torch, or the reason why it cannot run in `missing`. */
export function torchProgram(file, { python }) {
  const reason = lacksTorch(python);
  return reason === undefined ? { command: python, args: [peerFile(file)] } : { missing: reason };
}

/**
 * Loads one tower of a checkpoint into this package and into the peers, each in a process of its own.
 * @param settings `checkpoint`, `tower`, `threads`, `dtype` (default float32)
 * @param options `peers`, `python`, `smoke` of the command line. A smoke run has no real peers: this package's own
 *   double-precision `reference` device stands in for one.
 * @returns `ours`, `peers`, `descriptions` by name, `missing` (sentences), and `close()`, which must be called
 */
export async function startContestants(settings, options) {
  const contest = openContest();
  const { descriptions, close } = contest;
  const own = ownProgram('model/contestant.mjs');
  const missing = [];
  try {
    const ours = await contest.start('siglip2', own, settings);
    const peers = [];
    if (options.smoke) {
      peers.push(await contest.start('reference', own, { ...settings, device: 'reference' }));
      return { ours, peers, descriptions, missing, close };
    }
    for (const name of options.peers.split(',').filter((wanted) => wanted !== '')) {
      if (!(name in known)) throw new RangeError(`--peers: expected ${Object.keys(known).join(' or ')}, got ${name}`);
      const found = await known[name](settings, options);
      if (found.missing === undefined) peers.push(await contest.start(name, found, { ...settings, ...found.extra }));
      else missing.push(`${name} was not measured: ${found.missing}.`);
    }
    return { ours, peers, descriptions, missing, close };
  } catch (error) {
    await close();
    throw error;
  }
}

const known = {
  async onnxruntime(settings, options) {
    if (!installed('onnxruntime-node')) return { missing: notInstalled };
    const found = exportedGraph(settings, options);
    return found.missing ? found : { ...nodeProgram('onnxruntime.mjs'), extra: { graph: found.graph } };
  },

  async 'transformers.js'(settings, options) {
    if (!installed('@huggingface/transformers')) return { missing: notInstalled };
    const found = exportedGraph(settings, options);
    return found.missing ? found : { ...nodeProgram('transformers_js.mjs'), extra: { graph: found.graph } };
  },

  torch: async (_settings, options) => torchProgram('torch_towers.py', options),

  async 'torch compiled'(_settings, options) {
    const { error } = spawnSync('g++', ['--version']);
    if (error !== undefined) return { missing: 'torch.compile needs g++' };
    return { ...torchProgram('torch_towers.py', options), extra: { compiled: true } };
  },
};

const nodeProgram = (file) => ({ command: process.execPath, args: [peerFile(file)] });
const installed = (name) => existsSync(path.join(cache, 'peers', 'node_modules', name));
const notInstalled = 'run node benchmarks/peers/install.mjs';

/** The vision tower as an ONNX graph, exported when it is not in the cache; or in `missing`, why there is none. */
function exportedGraph({ checkpoint, tower }, { python }) {
  if (tower !== 'vision') return { missing: 'only the vision graph is exported' };
  const { model_type: type } = JSON.parse(readFileSync(path.join(checkpoint, 'config.json'), 'utf8'));
  if (type !== 'siglip') return { missing: 'only graphs of fixed resolution are exported' };
  const graph = path.join(cache, 'graphs', `${path.basename(checkpoint)}.onnx`);
  if (existsSync(graph)) return { graph };
  const reason = lacksTorch(python);
  if (reason !== undefined) return { missing: `exporting the graph needs torch; ${reason}` };
  mkdirSync(path.dirname(graph), { recursive: true });
  process.stderr.write(`exporting ${graph}\n`);
  const { status, stderr } = spawnSync(python, [peerFile('export_vision_onnx.py'), checkpoint, graph], {
    encoding: 'utf8',
  });
  if (status !== 0) throw new Error(`the vision graph could not be exported:\n${stderr.slice(-2000)}`);
  return { graph };
}

function lacksTorch(python) {
  const { status, error, stderr } = spawnSync(python, ['-c', 'import torch, transformers'], { encoding: 'utf8' });
  if (status === 0) return undefined;
  return `${python}: ${error?.message ?? stderr.trim().split('\n').at(-1)} (see --python)`;
}
