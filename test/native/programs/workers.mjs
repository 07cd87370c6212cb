// Workers that load the package, work, and are terminated at any moment. Arguments: mode, rounds, checkpoint folder.
import { setTimeout as sleep } from 'node:timers/promises';
import { Worker } from 'node:worker_threads';
import { doSomeWork, loadPackage } from './package.mjs';

const [mode, rounds, folder] = [process.argv[2], Number(process.argv[3]), process.argv[4]];
const values = new Set();

function start(workerData) {
  const worker = new Worker(new URL('./worker.mjs', import.meta.url), { workerData: { folder, ...workerData } });
  const working = new Promise((resolve, reject) => {
    worker.once('message', ({ expected, binaries }) => {
      values.add(expected);
      if (binaries !== 1) reject(new Error(`the package loaded ${binaries} binaries into one worker`));
      resolve();
    });
    worker.once('error', reject);
  });
  const ended = new Promise((resolve) => worker.once('exit', resolve));
  return { worker, working, ended };
}

const format = (index) => (index % 2 === 0 ? 'esm' : 'cjs');

if (mode === 'alone') {
  // The addon is loaded by one worker at a time, which ends by itself, and never by this thread.
  for (let round = 0; round < rounds; round++) {
    const { working, ended } = start({ format: format(round), threads: 2, rounds: 2 });
    await working;
    const code = await ended;
    if (code !== 0) throw new Error(`the worker ended with ${code}`);
  }
} else {
  const packages = mode === 'beside' ? await loadPackage() : undefined;
  const model = await packages?.esm.Siglip2.load(folder);
  for (let round = 0; round < rounds; round++) {
    const workers = [0, 1, 2].map((index) => start({ format: format(round + index), threads: 1 + index }));
    // In some rounds the end comes while they are loading.
    const early = round % 5 === 4;
    if (early) await sleep(20 * (round % 7));
    else await Promise.all(workers.map(({ working }) => working));
    await sleep((round * 7) % 23);
    if (model !== undefined) values.add(await doSomeWork(packages, model));
    if (early) for (const { working } of workers) working.catch(() => {});
    await Promise.all(workers.map(({ worker }) => worker.terminate()));
    await Promise.all(workers.map(({ ended }) => ended));
  }
}
// The package still works, and everyone got the same numbers.
const packages = await loadPackage();
const model = await packages.cjs.Siglip2.load(folder);
values.add(await doSomeWork(packages, model));
if (values.size !== 1) throw new Error(`different results: ${[...values].join(', ')}`);
console.log('all rounds done');
