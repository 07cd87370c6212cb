// @huggingface/transformers on an exported graph, as a contestant; see README.md. Settings are the package's defaults but
// for the number of threads.
import { copyFileSync, existsSync, mkdirSync, symlinkSync } from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import { answerRequests } from '../support/answer.mjs';
import { cache } from '../support/paths.mjs';

const require = createRequire(path.join(cache, 'peers', 'package.json'));
const { env, SiglipVisionModel, Tensor } = require('@huggingface/transformers');
env.allowRemoteModels = false;
env.localModelPath = path.join(cache, 'transformers.js');
let model;

/** The checkpoint as the package expects it: configuration, and the graph in a folder `onnx`. */
function makeFolder(checkpoint, graph) {
  const name = path.basename(checkpoint);
  const folder = path.join(env.localModelPath, name, 'onnx');
  mkdirSync(folder, { recursive: true });
  copyFileSync(path.join(checkpoint, 'config.json'), path.join(path.dirname(folder), 'config.json'));
  const link = path.join(folder, 'vision_model.onnx');
  if (!existsSync(link)) symlinkSync(graph, link);
  return name;
}

await answerRequests({
  async load({ checkpoint, graph, threads }) {
    model = await SiglipVisionModel.from_pretrained(makeFolder(checkpoint, graph), {
      dtype: 'fp32',
      device: 'cpu',
      session_options: { intraOpNumThreads: threads },
    });
    return { description: `@huggingface/transformers ${env.version}, CPU, float32` };
  },
  prepare: (_kind, shape, arrays) => ({
    pixel_values: new Tensor('float32', new Float32Array(arrays.pixelValues), shape),
  }),
  async forward(input) {
    return (await model(input)).pooler_output.data;
  },
});
