/** Seeded randomness and mutations for the fuzz tests. */

/** A reproducible source of choices (the xorshift128 generator of Marsaglia, 2003). */
export class Random {
  private readonly state: Uint32Array;

  constructor(seed: number) {
    this.state = Uint32Array.of(seed ^ 0x9e3779b9, seed ^ 0x243f6a88, seed ^ 0xb7e15162, seed | 1);
    for (let i = 0; i < 16; i++) this.bits();
  }

  bits(): number {
    const s = this.state;
    let t = s[3]!;
    t ^= t << 11;
    t ^= t >>> 8;
    s.copyWithin(1, 0, 3);
    s[0] = t ^ s[0]! ^ (s[0]! >>> 19);
    return s[0]!;
  }

  /** An integer from 0 to `bound` − 1. */
  below(bound: number): number {
    return this.bits() % bound;
  }

  chance(oneIn: number): boolean {
    return this.below(oneIn) === 0;
  }

  pick<T>(choices: readonly T[]): T {
    return choices[this.below(choices.length)]!;
  }
}

/** Values that readers of numbers, names and structures tend to get wrong. */
export const nastyValues: readonly unknown[] = [
  ...[null, true, false, '', 'x', '0', '16', [], {}, [[]], { height: 4 }, [16, 16], [0.5, 0.5, 0.5]],
  ...[0, -0, 1, -1, 2, 3, 7, 8, 16, 0.5, 1.5, 1e-6, 1e-320, 255, 256, 257, 1023, 1024, 1025, 65535, 65536, 65537],
  ...[2 ** 31 - 1, 2 ** 31, 2 ** 32, 2 ** 53 - 1, 2 ** 53, 1e19, 1e308, Number.MAX_VALUE, -(2 ** 31)],
  ...['__proto__', 'constructor', 'F32', 'BF16', 'F4', 'I64', 'siglip', 'siglip2', 'gelu_new', 'gelu'],
];

const tokens = [
  ...[
    '{',
    '}',
    '[',
    ']',
    ':',
    ',',
    '"',
    '\\',
    '\\u0000',
    '\\ud800',
    '\\"',
    'null',
    'true',
    '1e999',
    '-0',
    '-',
    '0',
    '1',
  ],
  ...[
    '18446744073709551615',
    '9007199254740992',
    '"__proto__"',
    '"__metadata__"',
    '"dtype"',
    '"shape"',
    '"F32"',
    '[0,4]',
  ],
  ...[' ', '\n', '\uFEFF', '\u0000', 'é', '\u{1f600}', '{"a":', '[[[[', ']]]]', '.5', 'E+1', ',,'],
];

/** Text with one to four small damages. */
export function mutateText(random: Random, text: string): string {
  for (let rounds = 1 + random.below(4); rounds > 0; rounds--) {
    const at = random.below(text.length + 1);
    const length = random.chance(4) ? random.below(text.length + 1) : random.below(4);
    const other = random.below(text.length + 1);
    const insert = random.pick([
      '',
      random.pick(tokens),
      random.pick(tokens),
      String.fromCharCode(random.below(random.chance(4) ? 65536 : 128)),
      text.slice(other, other + random.below(40)),
    ]);
    text = text.slice(0, at) + insert + text.slice(random.chance(3) ? at : at + length);
  }
  return text.slice(0, 4096);
}

/** A copy of a JSON value in which members are replaced, removed, added or exchanged. */
export function mutateValue(random: Random, value: unknown): unknown {
  const copy = structuredClone(value);
  for (let rounds = 1 + random.below(3); rounds > 0; rounds--) {
    const place = randomPlace(random, copy);
    const other = randomPlace(random, copy);
    if (place === undefined || other === undefined) return structuredClone(random.pick(nastyValues));
    const [parent, key] = place;
    const [otherParent, otherKey] = other;
    const old = parent[key];
    const replacement = [
      () => structuredClone(random.pick(nastyValues)),
      () =>
        typeof old === 'number' ? old + random.pick([-1, 1, 2, 8, -8]) : structuredClone(random.pick(nastyValues)),
      () =>
        typeof old === 'number' ? old * random.pick([0, 2, -1, 0.5, 1024]) : structuredClone(otherParent[otherKey]),
      () => structuredClone(otherParent[otherKey]),
    ];
    if (random.chance(6) && !Array.isArray(parent)) delete parent[key];
    else parent[key] = random.pick(replacement)();
  }
  return copy;
}

/** A member somewhere in a value: shallow ones are as likely as all that is below them. */
function randomPlace(random: Random, value: unknown): [Record<string, unknown>, string] | undefined {
  if (typeof value !== 'object' || value === null) return undefined;
  const keys = Object.keys(value);
  if (keys.length === 0) return undefined;
  const key = random.pick(keys);
  const parent = value as Record<string, unknown>;
  const deeper = random.chance(4) ? undefined : randomPlace(random, parent[key]);
  return deeper ?? [parent, key];
}
