// onnxruntime-node on an exported graph, as a contestant; see README.md. Settings are the package's defaults but for the
// number of threads.
import { createRequire } from 'node:module';
import path from 'node:path';
import { answerRequests } from '../support/answer.mjs';
import { cache } from '../support/paths.mjs';

const require = createRequire(path.join(cache, 'peers', 'package.json'));
const { InferenceSession, Tensor } = require('onnxruntime-node');
let session;

await answerRequests({
  async load({ graph, threads }) {
    session = await InferenceSession.create(graph, {
      executionProviders: ['cpu'],
      intraOpNumThreads: threads,
      graphOptimizationLevel: 'all',
    });
    const { version } = require('onnxruntime-node/package.json');
    return { description: `onnxruntime-node ${version}, CPU` };
  },
  prepare: (_kind, shape, arrays) => ({
    pixel_values: new Tensor('float32', new Float32Array(arrays.pixelValues), shape),
  }),
  async forward(input) {
    return (await session.run(input)).pooler_output.data;
  },
});
