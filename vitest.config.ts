import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    // Native work uses every core itself: more than two test processes only fight for them.
    maxWorkers: 2,
    testTimeout: 60_000,
    hookTimeout: 60_000,
    // A CommonJS file that knows where it lies on disk must be loaded as it is, not transformed.
    server: { deps: { external: [/native-loader\.cjs$/] } },
  },
});
