// Ways for a process to end while native work is queued or running. Arguments: mode, checkpoint folder.
import { Worker } from 'node:worker_threads';
import { doLongWork, doSomeWork, loadPackage } from './package.mjs';

const [mode, folder] = process.argv.slice(2);
const packages = await loadPackage();
const model = await packages.esm.Siglip2.load(folder);

const modes = {
  // One long operation is running, others wait.
  exit() {
    for (let i = 0; i < 3; i++) doLongWork(packages.esm.kernels);
    for (let i = 0; i < 50; i++) doSomeWork(packages, model);
    setTimeout(() => process.exit(7), 50);
  },
  exitAtOnce() {
    doLongWork(packages.esm.kernels);
    for (let i = 0; i < 50; i++) doSomeWork(packages, model);
    process.exit(7);
  },
  throw() {
    for (let i = 0; i < 50; i++) doSomeWork(packages, model);
    setTimeout(() => {
      throw new Error('uncaught on purpose');
    }, 10);
  },
  // Nothing but the promises of native work keeps this process alive.
  finish() {
    let done = 0;
    for (let i = 0; i < 8; i++)
      doSomeWork(packages, model).then(() => {
        done++;
      });
    process.on('exit', () => console.log(`done ${done}`));
  },
  // Nothing keeps this process alive: no work, and a promise that will never be settled.
  async idle() {
    await doSomeWork(packages, model);
    new Promise(() => {}).then(() => console.log('never'));
    console.log('idle');
  },
  workerExit() {
    const worker = new Worker(
      `import(${JSON.stringify(new URL('./package.mjs', import.meta.url).href)}).then(async (p) => {
         const packages = await p.loadPackage();
         for (let i = 0; i < 3; i++) p.doLongWork(packages.esm.kernels);
         setTimeout(() => process.exit(5), 20);
       });`,
      { eval: true },
    );
    worker.on('exit', (code) => console.log(`worker ended with ${code}`));
  },
};
await modes[mode]();
