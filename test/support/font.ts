/** A TrueType font with one glyph, a filled square as wide as the em, for tests that draw characters. */

/** Units of the em, and the side of the square. */
const em = 1000;

/**
 * The bytes of a font that draws `character` as a square on the baseline and has no other glyph.
 *
 * Tables: https://learn.microsoft.com/typography/opentype/spec/otff
 */
export function squareFont(family: string, character: string): Buffer {
  const code = character.codePointAt(0) as number;
  // One contour of four points on the curve: all flags say "on the curve", coordinates are words, each from the one before.
  const glyph = Buffer.concat([
    shorts(1, 0, 0, em, em, 3, 0),
    Buffer.from([1, 1, 1, 1]),
    shorts(0, 0, em, 0, 0, em, 0, -em),
  ]);
  const name = Buffer.from(family, 'utf16le').swap16();
  const tables: Record<string, Buffer> = {
    'OS/2': Buffer.concat([
      shorts(0, em, 400, 5),
      Buffer.alloc(54),
      Buffer.from('test'),
      shorts(0, 0, 0xffff, em, 0, 0, em, 0),
    ]),
    cmap: Buffer.concat([shorts(0, 1, 3, 10), longs(12), shorts(12, 0), longs(28, 0, 1, code, code, 1)]),
    glyf: glyph,
    head: Buffer.concat([
      longs(0x10000, 0x10000, 0, 0x5f0f3cf5),
      shorts(0, em),
      Buffer.alloc(16),
      shorts(0, 0, em, em, 0, 8, 2, 1, 0),
    ]),
    hhea: Buffer.concat([longs(0x10000), shorts(em, 0, 0, em, 0, 0, em, 1, 0, 0, 0, 0, 0, 0, 0, 2)]),
    hmtx: shorts(em, 0, em, 0),
    loca: longs(0, 0, glyph.length),
    maxp: Buffer.concat([longs(0x10000), shorts(2, 4, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0)]),
    name: Buffer.concat([shorts(0, 2, 30), ...[1, 2].flatMap((id) => [shorts(3, 1, 0x409, id, name.length, 0)]), name]),
    post: longs(0x30000, 0, 0, 0, 0, 0, 0, 0),
  };
  const names = Object.keys(tables);
  let offset = 12 + 16 * names.length;
  const directory = [longs(0x10000), shorts(names.length, 128, 3, names.length * 16 - 128)];
  const bodies: Buffer[] = [];
  for (const tag of names) {
    const body = tables[tag] as Buffer;
    directory.push(Buffer.from(tag.padEnd(4)), longs(0, offset, body.length));
    bodies.push(body, Buffer.alloc(-body.length & 3));
    offset += (body.length + 3) & ~3;
  }
  return Buffer.concat([...directory, ...bodies]);
}

/** 16-bit words, big-endian. */
function shorts(...values: number[]): Buffer {
  const bytes = Buffer.alloc(2 * values.length);
  for (const [at, value] of values.entries()) bytes.writeUInt16BE(value & 0xffff, 2 * at);
  return bytes;
}

/** 32-bit words, big-endian. */
function longs(...values: number[]): Buffer {
  const bytes = Buffer.alloc(4 * values.length);
  for (const [at, value] of values.entries()) bytes.writeUInt32BE(value >>> 0, 4 * at);
  return bytes;
}
