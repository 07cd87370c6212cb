// From decoded pixels to packed patches, on one core, against Pillow with NumPy and Hugging Face's processor; decoding of JPEG
// apart: see ../README.md.
import sharp from 'sharp';
import { compareRows, requirePassed } from '../support/compare.mjs';
import { currentLoad } from '../support/machine.mjs';
import { readOptions } from '../support/options.mjs';
import { openContest, ownProgram, peerOptions, torchProgram } from '../support/peers.mjs';
import { picture } from '../support/random.mjs';
import { format, report } from '../support/results.mjs';
import { summarize } from '../support/statistics.mjs';
import { interleave, pairedRatios } from '../support/timing.mjs';

const options = readOptions(peerOptions);
const scale = options.smoke ? 8 : 1;
const patchSize = 16;
const leastRatio = 5;
const cases = [
  { name: '1024 × 768 → 256 patches', width: 1024, height: 768, maxPatches: 256, limited: true },
  { name: '640 × 480 → 256 patches', width: 640, height: 480, maxPatches: 256 },
  { name: '4000 × 3000 → 256 patches', width: 4000, height: 3000, maxPatches: 256 },
  { name: '1920 × 1080 → 1024 patches', width: 1920, height: 1080, maxPatches: 1024 },
];
const peerNames = { 'Pillow + NumPy': 'pillow', 'Hugging Face': 'hugging face' };

const checks = [];
const limits = [];
const rows = [];
const raw = {};
const notes = [];
let descriptions = {};

async function startAll(contest, settings) {
  const own = ownProgram('model/preprocessing-contestant.mjs');
  const contestants = [await contest.start('siglip2', own, settings)];
  if (options.smoke)
    return [...contestants, await contest.start('reference', own, { ...settings, device: 'reference' })];
  const program = torchProgram('picture_processors.py', options);
  if (program.missing !== undefined) {
    if (notes.length === 0) notes.push(`Pillow and Hugging Face were not measured: ${program.missing}.`);
    return contestants;
  }
  for (const [name, processor] of Object.entries(peerNames))
    contestants.push(await contest.start(name, program, { ...settings, processor }));
  return contestants;
}

/** Checks that contestants agree, times them in turns, and adds their rows. */
async function measure(label, contestants, input, width, bounds, limited) {
  for (const contestant of contestants) await contestant.input(input);
  const [ours, ...peers] = contestants;
  const output = await ours.run({ checked: true });
  const gate = [];
  for (const peer of peers) {
    const expected = await peer.run(options.smoke ? { checked: true } : {});
    gate.push(compareRows(`${label}: siglip2 against ${peer.name}`, output, expected, width, bounds));
  }
  checks.push(...gate);
  requirePassed(gate);
  process.stderr.write(`${label} (load ${currentLoad().toFixed(1)})\n`);
  const { samples, cpu, rounds } = await interleave(contestants, options.plan);
  raw[label] = { milliseconds: Object.fromEntries(samples), cpuMilliseconds: Object.fromEntries(cpu) };
  for (const { name } of contestants) {
    const row = [label, name, `${rounds}`, summarize(samples.get(name)).median, summarize(cpu.get(name)).median];
    if (name === 'siglip2') {
      rows.push([...row, '', '']);
      continue;
    }
    const [times, work] = [samples, cpu].map((all) => summarize(pairedRatios(all.get(name), all.get('siglip2'))));
    const ratio = ({ median, low, high }) => `**${format(median)}** (${format(low)} to ${format(high)})`;
    rows.push([...row, ratio(times), ratio(work)]);
    if (limited && name === 'Pillow + NumPy')
      limits.push({
        name: `${label}: against Pillow + NumPy, CPU time`,
        value: work.median,
        unit: '×',
        limit: `≥ ${leastRatio} ×`,
        met: work.median >= leastRatio,
      });
  }
}

for (const { name, width, height, maxPatches, limited } of cases) {
  const contest = openContest();
  try {
    const settings = { patchSize, maxPatches: Math.max(4, maxPatches / scale ** 2), threads: 1 };
    const contestants = await startAll(contest, settings);
    descriptions = { ...descriptions, ...contest.descriptions };
    const { data, ...size } = picture(width / scale, Math.floor(height / scale), 3, 1);
    const input = { kind: 'pictures', shape: [1, size.height, size.width, 3], arrays: { pixels: data } };
    // Resized values are equal to the bit; what remains is the rounding of scale and shift.
    const exact = { difference: 1e-5, cosine: 1e-9 };
    await measure(name, contestants, input, 3 * patchSize * patchSize, exact, limited);
    if (!limited) continue;
    const bytes = await sharp(data, { raw: size }).jpeg({ quality: 90 }).toBuffer();
    const decoders = contestants.filter(({ name: each }) => each === 'siglip2' || each === 'Pillow + NumPy');
    // Two builds of one decoder may round the inverse transform differently.
    const lossy = { difference: 0.1, cosine: 1e-4 };
    if (!options.smoke)
      await measure(
        `JPEG of ${size.width} × ${size.height} to pixels`,
        decoders,
        { kind: 'jpeg', shape: [bytes.length], arrays: { bytes: new Uint8Array(bytes) } },
        size.width * 3,
        lossy,
      );
  } finally {
    await contest.close();
  }
}
if (!options.smoke && checks.length === 0)
  checks.push({ name: 'peers', passed: false, detail: 'none was there to compare with' });

await report(
  {
    name: 'preprocessing',
    title: 'Preparation of pictures, one core',
    settings: { patchSize, threads: 1, ...descriptions },
    checks,
    limits,
    tables: [
      {
        title: 'One picture',
        columns: ['', '', 'rounds', 'ms', 'CPU time, ms', 'siglip2 is so many times as fast', 'in CPU time'],
        rows,
      },
    ],
    notes: [
      'From decoded pixels, RGB, to float32 patches that are resized as Pillow resizes, to the bit, normalised and packed. Pillow + NumPy does the least that takes: `resize`, scale and shift, patch order.',
      'Medians; in brackets the range of the middle 60 % of the rounds. CPU time counts all threads of a contestant: the comparison per core.',
      'JPEG is decoded by sharp (libvips) here, by Pillow there, both with libjpeg-turbo; sharp is called asynchronously.',
      ...notes,
    ],
    raw,
  },
  options.results,
);
