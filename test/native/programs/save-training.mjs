// Trains and saves without end, until it is killed. Arguments: folder of the training, checkpoint folder. Prints the
// number of steps behind every save that is complete.
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { loadPackage, root, textInput, visionInput } from './package.mjs';

const [folder, checkpoint] = process.argv.slice(2);
const { Trainer } = await import(pathToFileURL(path.join(root, 'dist', 'esm', 'training', 'index.js')).href);
const { esm } = await loadPackage();
const model = await esm.Siglip2.load(checkpoint);
const trainer = await Trainer.resume(folder).catch(() => Trainer.create(model));
const [inputIds, shape] = textInput(trainer.model.config, 2);
for (;;) {
  await trainer.step({ images: visionInput(trainer.model.config, 2), texts: { inputIds, shape } });
  await trainer.save(folder, { state: { at: trainer.stepsTaken } });
  console.log(trainer.stepsTaken);
}
