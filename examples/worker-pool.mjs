// Worker threads: each loads the model, and all share one copy of its weights in memory.
import { fileURLToPath } from 'node:url';
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads';
import { Siglip2 } from 'siglip2';

const here = (name) => fileURLToPath(new URL(`../test/fixtures/${name}`, import.meta.url));

if (isMainThread) {
  const source = process.argv[2] ?? here('checkpoints/naflex_hd64');
  const texts = ['a cat', 'a cup of coffee', 'a mountain', 'a dog'];
  const answers = await Promise.all(
    texts.map(
      (text) =>
        new Promise((resolve, reject) => {
          const worker = new Worker(new URL(import.meta.url), { workerData: { source, text } });
          worker.once('message', resolve);
          worker.once('error', reject);
        }),
    ),
  );
  for (const { text, width } of answers) console.log(`${text}: an embedding of ${width} numbers`);
} else {
  const { source, text } = workerData;
  const model = await Siglip2.load(source, { towers: ['text'], threads: 1 });
  const embedding = await model.embedTexts(text);
  parentPort.postMessage({ text, width: embedding.shape[1] });
  model.dispose();
}
