/** Starts the contestants that this machine has, and says why others are missing. */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { Contestant } from './contestant.mjs';
import { benchmarks, cache } from './paths.mjs';

export const peerOptions = {
  checkpoint: { type: 'string' },
  peers: { type: 'string', default: 'onnxruntime,torch' },
  python: { type: 'string', default: process.env.SIGLIP2_BENCHMARK_PYTHON ?? 'python3' },
};

const peerFile = (name) => path.join(benchmarks, 'peers', name);

/**
 * Loads one tower of a checkpoint into this package and into the peers, each in a process of its own.
 * @param settings `checkpoint`, `tower`, `threads`
 * @param options `peers`, `python`, `smoke` of the command line. A smoke run has no real peers: this package's own
 *   double-precision `reference` device stands in for one.
 * @returns `ours`, `peers`, `descriptions` by name, `missing` (sentences), and `close()`, which must be called
 */
export async function startContestants(settings, options) {
  const folder = mkdtempSync(path.join(os.tmpdir(), 'siglip2-benchmark-'));
  const started = [];
  const descriptions = {};
  const close = async () => {
    await Promise.all(started.map((contestant) => contestant.close()));
    rmSync(folder, { recursive: true, force: true });
  };
  const start = async (name, command, args, extra) => {
    const contestant = new Contestant(name, command, args, folder);
    started.push(contestant);
    descriptions[name] = (await contestant.load({ ...settings, ...extra })).description;
    return contestant;
  };
  const own = [peerFile('../model/contestant.mjs')];
  const missing = [];
  try {
    const ours = await start('siglip2', process.execPath, own, {});
    const peers = [];
    if (options.smoke) {
      peers.push(await start('reference', process.execPath, own, { device: 'reference' }));
      return { ours, peers, descriptions, missing, close };
    }
    for (const name of options.peers.split(',').filter((wanted) => wanted !== '')) {
      if (!(name in known)) throw new RangeError(`--peers: expected ${Object.keys(known).join(' or ')}, got ${name}`);
      const found = await known[name](settings, options);
      if (found.missing === undefined) peers.push(await start(name, found.command, found.args, found.extra));
      else missing.push(`${name} was not measured: ${found.missing}.`);
    }
    return { ours, peers, descriptions, missing, close };
  } catch (error) {
    await close();
    throw error;
  }
}

const known = {
  async onnxruntime({ checkpoint, tower }, { python }) {
    if (tower !== 'vision') return { missing: 'only the vision graph is exported' };
    if (!existsSync(path.join(cache, 'peers', 'node_modules', 'onnxruntime-node')))
      return { missing: 'run node benchmarks/peers/install.mjs' };
    const graph = path.join(cache, 'graphs', `${path.basename(checkpoint)}.onnx`);
    if (!existsSync(graph)) {
      const reason = lacksTorch(python);
      if (reason !== undefined) return { missing: `exporting the graph needs torch; ${reason}` };
      mkdirSync(path.dirname(graph), { recursive: true });
      process.stderr.write(`exporting ${graph}\n`);
      const { status, stderr } = spawnSync(python, [peerFile('export_vision_onnx.py'), checkpoint, graph], {
        encoding: 'utf8',
      });
      if (status !== 0) throw new Error(`the vision graph could not be exported:\n${stderr.slice(-2000)}`);
    }
    return { command: process.execPath, args: [peerFile('onnxruntime.mjs')], extra: { graph } };
  },

  async torch(_settings, { python }) {
    const reason = lacksTorch(python);
    if (reason !== undefined) return { missing: reason };
    return { command: python, args: [peerFile('torch_towers.py')], extra: {} };
  },
};

function lacksTorch(python) {
  const { status, error, stderr } = spawnSync(python, ['-c', 'import torch, transformers'], { encoding: 'utf8' });
  if (status === 0) return undefined;
  return `${python}: ${error?.message ?? stderr.trim().split('\n').at(-1)} (see --python)`;
}
