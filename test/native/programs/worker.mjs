// A worker that works until it is stopped, after telling what the first round of work gave.
import { parentPort, workerData } from 'node:worker_threads';
import { countBinaries, doSomeWork, loadPackage } from './package.mjs';

const packages = await loadPackage();
const model = await packages[workerData.format].Siglip2.load(workerData.folder, { threads: workerData.threads });
const expected = await doSomeWork(packages, model);
parentPort.postMessage({ expected, binaries: countBinaries() });
for (let round = 0; round < (workerData.rounds ?? Number.POSITIVE_INFINITY); round++) {
  const results = await Promise.all([1, 2, 3].map(() => doSomeWork(packages, model)));
  if (results.some((result) => result !== expected)) throw new Error(`got ${results}, expected ${expected}`);
}
