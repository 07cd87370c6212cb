/** Sizes of pictures as collections have them, drawn from a seed; and the grids of patches that NaFlex makes of them. */
import { native } from '../../dist/esm/native.js';
import { generator } from './random.mjs';

/** Width to height of a hundred pictures: an assumption, of cameras, telephones and web pages. */
const aspectRatios = [
  [3 / 2, 20],
  [2 / 3, 12],
  [4 / 3, 20],
  [3 / 4, 13],
  [1, 15],
  [16 / 9, 9],
  [9 / 16, 6],
  [3, 3],
  [1 / 3, 2],
].flatMap(([ratio, pictures]) => new Array(pictures).fill(ratio));

/** Sequence lengths that NaFlex models were trained with (arXiv 2502.14786). */
const budgets = [128, 256, 576, 784, 1024];

/** Mixes of a NaFlex batch: `budget` draws the most patches of a picture; `enlarge`, whether small pictures grow to it. */
export const mixes = {
  'photographs, 256 patches': { most: 256, budget: () => 256, enlarge: true },
  'web pictures at their own size, up to 256 patches': { most: 256, budget: () => 256, enlarge: false },
  'photographs, 128 to 1024 patches': {
    most: 1024,
    budget: (uniform) => budgets[Math.floor(uniform * 5)],
    enlarge: true,
  },
};

/** `count` numbers from 0 to 1, one in each of as many equal parts, shuffled: few pictures are a fair sample as well. */
function spreadNumbers(count, next) {
  const numbers = Array.from({ length: count }, (_, i) => (i + (next() + 0.5) / 4294967296) / count);
  for (let i = count - 1; i > 0; i--) {
    const other = next() % (i + 1);
    [numbers[i], numbers[other]] = [numbers[other], numbers[i]];
  }
  return numbers;
}

/**
 * Grids of patches, rows and columns, of `count` pictures of a mix. The longer side is from 64 to 2048 pixels, every
 * octave as often.
 */
export function drawGrids(mix, count, patchSize, seed) {
  const next = generator(seed);
  const [ratios, sides, budgetsDrawn] = [0, 1, 2].map(() => spreadNumbers(count, next));
  return ratios.map((share, i) => {
    const ratio = aspectRatios[Math.floor(share * aspectRatios.length)];
    const longer = 64 * 32 ** sides[i];
    const budget = mix.budget(budgetsDrawn[i]);
    const [width, height] = ratio > 1 ? [longer, longer / ratio] : [longer * ratio, longer];
    const own = Math.floor(width / patchSize) * Math.floor(height / patchSize);
    const patches = mix.enlarge ? budget : Math.min(budget, Math.max(1, own));
    const size = native().naflexTargetSize(Math.round(height), Math.round(width), patchSize, patches);
    return size.map((pixels) => pixels / patchSize);
  });
}
