import { readdirSync, readFileSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { deflateSync } from 'node:zlib';
import sharp from 'sharp';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { decodeImage, decodeImages, type ImageInput } from '../../lib/processing/decode.js';
import { fixtures, hash, readFixtureJson } from '../support/golden.js';

interface Expected {
  width: number;
  height: number;
  mode: string;
  rgb: string;
}
const folder = path.join(fixtures, 'decode');
const expected = readFixtureJson<Record<string, Expected>>('decode/expected.json');
const file = (name: string): string => path.join(folder, name);
const rgbOf = (name: string): number[] => [...Buffer.from(expected[name]!.rgb, 'base64')];
const failure = (input: ImageInput, options?: object): Promise<unknown> =>
  decodeImage(input, options).then(
    () => undefined,
    (error: unknown) => error,
  );

describe('decodeImage agrees with Pillow', () => {
  it('is tested on every fixture', () => {
    expect(Object.keys(expected).sort()).toEqual(
      readdirSync(folder)
        .filter((name) => name !== 'expected.json')
        .sort(),
    );
  });

  for (const [name, want] of Object.entries(expected)) {
    const lossy = name.endsWith('.avif');
    it(`${name} (Pillow mode ${want.mode})${lossy ? ', within one step' : ''}`, async () => {
      const image = await decodeImage(file(name));
      expect([image.width, image.height, image.channels]).toEqual([want.width, want.height, 3]);
      const pixels = rgbOf(name);
      expect(image.data.length).toBe(pixels.length);
      const differences = pixels.map((value, i) => Math.abs(value - image.data[i]!));
      expect(Math.max(...differences)).toBeLessThanOrEqual(lossy ? 1 : 0);
    });
  }

  it('takes 16-bit grey by clipping: golden picture 11 is almost white', async () => {
    const image = await decodeImage(path.join(fixtures, 'images', '11_gray16_121x90.png'));
    expect([image.width, image.height]).toEqual([121, 90]);
    const white = image.data.filter((value) => value === 255).length / image.data.length;
    expect(white).toBeGreaterThan(0.95);
  });

  it('decodes every golden picture at the size its name says', async () => {
    const names = readdirSync(path.join(fixtures, 'images'));
    expect(names.length).toBe(14);
    const images = await decodeImages(names.map((name) => path.join(fixtures, 'images', name)));
    images.forEach((image, i) => {
      expect(names[i]).toContain(`_${image.width}x${image.height}.png`);
      expect(image.data.length).toBe(image.width * image.height * 3);
    });
  });
});

describe('decodeImage takes every kind of input', () => {
  const name = 'rgb8-alpha.png';
  const bytes = readFileSync(file(name));
  const inputs: Record<string, () => ImageInput> = {
    'a relative path': () => path.relative(process.cwd(), file(name)),
    'a file: URL': () => pathToFileURL(file(name)),
    'a file: URL as a string': () => pathToFileURL(file(name)).href,
    'a data: URL': () => `data:image/png;base64,${bytes.toString('base64')}`,
    'a data: URL object': () => new URL(`data:image/png;base64,${bytes.toString('base64')}`),
    'a Buffer': () => bytes,
    'a Uint8Array inside a larger buffer': () => new Uint8Array([1, 2, 3, ...bytes, 4]).subarray(3, 3 + bytes.length),
    'a Uint8Array of shared memory': () => {
      const shared = new Uint8Array(new SharedArrayBuffer(bytes.length));
      shared.set(bytes);
      return shared;
    },
    'an ArrayBuffer': () => new Uint8Array(bytes).buffer,
    'a Blob': () => new Blob([bytes]),
    'a sharp instance': () => sharp(file(name)),
  };
  for (const [kind, make] of Object.entries(inputs))
    it(kind, async () => {
      const image = await decodeImage(make());
      expect([...image.data]).toEqual(rgbOf(name));
    });

  it('leaves the bytes it was given as they were', async () => {
    for (const other of ['transparent.gif', 'partial.gif', name]) {
      const before = readFileSync(file(other));
      const given = Buffer.from(before);
      await decodeImage(given);
      expect(given.equals(before)).toBe(true);
    }
  });

  it('raw samples of 1 to 4 channels: grey is repeated, alpha dropped', async () => {
    const data = Uint8Array.from([10, 20, 30, 40, 50, 60, 70, 80, 90, 100, 110, 120]);
    const decode = async (channels: 1 | 2 | 3 | 4) =>
      [...(await decodeImage({ data, width: 12 / channels, height: 1, channels })).data].slice(0, 6);
    expect(await decode(1)).toEqual([10, 10, 10, 20, 20, 20]);
    expect(await decode(2)).toEqual([10, 10, 10, 30, 30, 30]);
    expect(await decode(3)).toEqual([10, 20, 30, 40, 50, 60]);
    expect(await decode(4)).toEqual([10, 20, 30, 50, 60, 70]);
    const clamped = await decodeImage({ data: new Uint8ClampedArray(data), width: 2, height: 2, channels: 3 });
    expect([...clamped.data]).toEqual([...data]);
  });

  it('raw samples are copied', async () => {
    const data = Uint8Array.from([1, 2, 3]);
    const image = await decodeImage({ data, width: 1, height: 1, channels: 3 });
    data.fill(9);
    expect([...image.data]).toEqual([1, 2, 3]);
  });

  it('the output of a sharp pipeline, with the instance still usable', async () => {
    const pipeline = sharp({ create: { width: 8, height: 6, channels: 3, background: '#102030' } }).resize(4, 2);
    const image = await decodeImage(pipeline);
    expect([image.width, image.height]).toEqual([4, 2]);
    expect([...image.data.subarray(0, 3)]).toEqual([0x10, 0x20, 0x30]);
    expect((await pipeline.png().toBuffer()).length).toBeGreaterThan(0);
    const grey = await decodeImage(sharp(file('rgb8.png')).greyscale());
    expect(grey.data.length).toBe(7 * 5 * 3);
    expect(grey.data[3]).toBe(grey.data[5]);
    // Neither four inks nor 16-bit samples may be taken for bytes of RGB and alpha.
    const plain = await decodeImage(sharp(file('cmyk.tiff')));
    expect(await decodeImage(sharp(file('cmyk.tiff')).toColourspace('cmyk'))).toEqual(plain);
    const wide = await decodeImage(sharp(file('rgb16.png')).toColourspace('rgb16').raw({ depth: 'ushort' }));
    expect([...wide.data]).toEqual(rgbOf('rgb16.png'));
  });
});

describe('decodeImage refuses', () => {
  const jpeg = readFileSync(file('ycc420.jpg'));
  const broken: Record<string, () => ImageInput> = {
    'an empty buffer': () => new Uint8Array(),
    'an empty Blob': () => new Blob([]),
    text: () => Buffer.from('no picture at all, but a sentence'),
    'a signature alone': () => readFileSync(file('rgb8.png')).subarray(0, 8),
    'a truncated JPEG': () => jpeg.subarray(0, jpeg.length - 20),
    'a truncated PNG': () => readFileSync(file('rgb8.png')).subarray(0, 150),
    'a truncated WebP': () => readFileSync(file('lossless.webp')).subarray(0, 80),
    'a truncated GIF': () => readFileSync(file('plain.gif')).subarray(0, 100),
    'a GIF without frames': () => Buffer.from('GIF89a\x01\0\x01\0\0\0\0;', 'latin1'),
    'a truncated TIFF': () => readFileSync(file('rgb8.tiff')).subarray(0, 200),
    'a truncated AVIF': () => readFileSync(file('lossy.avif')).subarray(0, 300),
    'an SVG': () => Buffer.from('<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>'),
    'a PNG without pixels': () => png(0, 5),
    'raw samples without pixels': () => ({ data: new Uint8Array(), width: 0, height: 3, channels: 3 }),
    'a missing file': () => file('missing.png'),
    'an empty path': () => '',
    'a folder': () => folder,
    'a path with a null byte': () => 'a\0b.png',
    'a file: URL of another host': () => 'file://elsewhere/picture.png',
    'a malformed URL': () => 'http://',
    'a data: URL without data': () => 'data:image/png;base64,',
    'a broken data: URL': () => 'data:nonsense',
    'a sharp instance of a missing file': () => sharp(file('missing.png')),
  };
  for (const [kind, make] of Object.entries(broken))
    it(kind, async () => {
      const error = await failure(make(), { argument: 'pictures[3]' });
      expect(error).toMatchObject({ name: 'SiglipError', code: 'ERR_SIGLIP_IMAGE' });
      expect((error as Error).message).toContain('pictures[3]');
    });

  it('names the path or URL in the message, without a password', async () => {
    expect(await failure('no/such/cat.jpg')).toMatchObject({
      message: expect.stringContaining('image (no/such/cat.jpg)'),
      details: { source: 'image (no/such/cat.jpg)' },
    });
    const { message } = (await failure('http://someone:secret@localhost:1/cat.jpg')) as Error;
    expect(message).toContain('http://localhost:1/cat.jpg');
    expect(message).not.toContain('secret@');
  });

  it('too many pixels, from the header alone', async () => {
    const details = { width: 100_000, height: 99_999, pixels: 9_999_900_000, maxPixels: 178_956_970 };
    expect(await failure(png(100_000, 99_999))).toMatchObject({ code: 'ERR_SIGLIP_IMAGE', details });
    for (const name of ['rgb8.png', 'partial.gif', 'ycc420.jpg'])
      expect(await failure(file(name), { maxPixels: 34 })).toMatchObject({ code: 'ERR_SIGLIP_IMAGE' });
    const raw = { data: new Uint8Array(35), width: 7, height: 5, channels: 1 } as const;
    expect(await failure(raw, { maxPixels: 34 })).toMatchObject({ details: { pixels: 35, maxPixels: 34 } });
    expect(await failure(sharp(file('rgb8.png')), { maxPixels: 34 })).toMatchObject({ details: { pixels: 35 } });
    expect(await failure(file('rgb8.png'), { maxPixels: 35 })).toBeUndefined();
  });

  it('a GIF frame that reaches far beyond the limit', async () => {
    const bytes = readFileSync(file('partial.gif'));
    const descriptor = bytes.lastIndexOf(Buffer.from([0x2c, 2, 0, 1, 0]));
    bytes.writeUInt16LE(65_000, descriptor + 1);
    bytes.writeUInt16LE(65_000, descriptor + 3);
    expect(await failure(bytes)).toMatchObject({ details: { width: 65_003, height: 65_002 } });
  });

  it('never fails in another way, whatever the damage', async () => {
    for (const name of [
      'rgb8-alpha.png',
      'ycc420.jpg',
      'transparent.gif',
      'lossless.webp',
      'tiled.tiff',
      'lossy.avif',
    ]) {
      const original = readFileSync(file(name));
      for (let trial = 0; trial < 60; trial++) {
        const bytes = Buffer.from(original);
        for (let i = 0; i < 3; i++) bytes[hash(trial * 8 + i, 5) % bytes.length] = hash(trial * 8 + i, 6) >>> 24;
        const error = await failure(bytes, { maxPixels: 1_000_000 });
        if (error !== undefined) expect(error).toMatchObject({ code: 'ERR_SIGLIP_IMAGE' });
      }
    }
  });

  it('what is no picture, as a mistake in the argument', async () => {
    for (const value of [undefined, null, 5, true, [], {}, new Date(), new Uint16Array(4), { data: new Uint8Array(3) }])
      expect(await failure(value as never)).toBeInstanceOf(TypeError);
    expect(await failure(5 as never)).toMatchObject({ message: expect.stringMatching(/^image: expected .*got 5$/) });
    const raw = { data: new Uint8Array(3), width: 1, height: 1, channels: 3 };
    const wrong = async (change: object) => failure({ ...raw, ...change } as never, { argument: 'photo' });
    expect(await wrong({ data: [1, 2, 3] })).toMatchObject({
      name: 'TypeError',
      message: expect.stringMatching(/^photo\.data: /),
    });
    expect(await wrong({ data: new Uint8Array(4) })).toMatchObject({
      name: 'RangeError',
      message: expect.stringMatching(/^photo\.data: .*= 3 /),
    });
    expect(await wrong({ width: 1.5 })).toMatchObject({
      name: 'RangeError',
      message: expect.stringMatching(/^photo\.width: /),
    });
    expect(await wrong({ height: '1' })).toMatchObject({
      name: 'TypeError',
      message: expect.stringMatching(/^photo\.height: /),
    });
    expect(await wrong({ channels: 5 })).toMatchObject({
      name: 'RangeError',
      message: expect.stringMatching(/^photo\.channels: /),
    });
    expect(await failure('ftp://host/cat.jpg')).toMatchObject({
      name: 'RangeError',
      message: expect.stringMatching(/^image: /),
    });
    expect(await failure(new URL('mailto:a@b.c'))).toBeInstanceOf(RangeError);
  });

  it('wrong options', async () => {
    expect(await failure(file('rgb8.png'), { maxPixel: 5 })).toBeInstanceOf(RangeError);
    expect(await failure(file('rgb8.png'), { maxPixels: 0 })).toBeInstanceOf(RangeError);
    expect(await failure(file('rgb8.png'), { maxPixels: '5' })).toBeInstanceOf(TypeError);
    expect(await failure(file('rgb8.png'), { signal: {} })).toBeInstanceOf(TypeError);
    expect(await failure(file('rgb8.png'), { argument: 5 })).toBeInstanceOf(TypeError);
  });

  it('to go on when the signal has fired', async () => {
    const signal = AbortSignal.abort(new Error('enough'));
    for (const input of [file('rgb8.png'), 'http://localhost:1/cat.jpg'])
      expect(await failure(input, { signal })).toMatchObject({
        code: 'ERR_SIGLIP_ABORTED',
        cause: expect.objectContaining({ message: 'enough' }),
      });
  });
});

describe('decodeImage fetches', () => {
  let server: Server;
  let origin: string;
  const png = readFileSync(file('rgb8.png'));
  beforeAll(async () => {
    server = createServer((request, response) => {
      if (request.url === '/picture') response.end(png);
      else if (request.url === '/moved') response.writeHead(302, { location: '/picture' }).end();
      else if (request.url === '/text') response.end('not a picture');
      else if (request.url === '/nothing') response.writeHead(204).end();
      else if (request.url === '/endless') {
        const timer = setInterval(() => response.write(Buffer.alloc(1000)), 1);
        response.on('close', () => clearInterval(timer));
      } else if (request.url === '/cut') {
        response.writeHead(200, { 'content-length': '1000' });
        response.write(png.subarray(0, 50), () => response.destroy());
      } else if (request.url !== '/silent') response.writeHead(404).end('no such picture');
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    origin = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  });
  afterAll(() => {
    server.closeAllConnections();
    server.close();
  });

  it('a picture, also after a redirect', async () => {
    for (const url of [`${origin}/picture`, new URL(`${origin}/moved`)])
      expect([...(await decodeImage(url)).data]).toEqual(rgbOf('rgb8.png'));
  });

  it('and says what went wrong', async () => {
    const cases: [string, object, RegExp][] = [
      ['/missing', {}, /the server answered 404/],
      ['/nothing', {}, /the server answered 204/],
      ['/text', {}, /cannot be decoded/],
      ['/cut', {}, /cannot be fetched/],
      ['/picture', { maxBytes: png.length - 1 }, /larger than the \d+ bytes/],
      ['/endless', { maxBytes: 20_000 }, /larger than the 20000 bytes/],
      ['/silent', { timeoutMs: 100 }, /not received within 100 ms/],
      ['/endless', { timeoutMs: 100 }, /not received within 100 ms/],
    ];
    for (const [url, options, message] of cases)
      expect(await failure(origin + url, options)).toMatchObject({
        code: 'ERR_SIGLIP_IMAGE',
        message: expect.stringMatching(message),
        details: { source: `image (${origin}${url})` },
      });
    expect(await failure(`${origin}/picture`, { maxBytes: png.length })).toBeUndefined();
  });

  it('no longer when another picture of the list has failed', async () => {
    await expect(decodeImages([`${origin}/silent`, Buffer.from('broken')], { concurrency: 2 })).rejects.toMatchObject({
      message: expect.stringContaining('images[1]'),
    });
  }, 5000);

  it('no longer when aborted on the way', async () => {
    const controller = new AbortController();
    setTimeout(() => controller.abort(), 50);
    expect(await failure(`${origin}/silent`, { signal: controller.signal })).toMatchObject({
      code: 'ERR_SIGLIP_ABORTED',
    });
  });
});

describe('decodeImages', () => {
  it('keeps the order, whatever the concurrency', async () => {
    const names = Object.keys(expected).filter((name) => !name.endsWith('.avif'));
    for (const concurrency of [1, 3, 100]) {
      const images = await decodeImages(names.map(file), { concurrency });
      images.forEach((image, i) => {
        expect([...image.data]).toEqual(rgbOf(names[i]!));
      });
    }
  });

  it('takes one picture or none', async () => {
    expect((await decodeImages(file('rgb8.png'))).length).toBe(1);
    expect(await decodeImages([])).toEqual([]);
  });

  it('decodes no more at a time than asked', async () => {
    let running = 0;
    let most = 0;
    const slow = (): ImageInput => {
      const blob = new Blob([readFileSync(file('rgb8.png'))]);
      const read = blob.arrayBuffer.bind(blob);
      blob.arrayBuffer = async () => {
        most = Math.max(most, ++running);
        await new Promise((resolve) => setTimeout(resolve, 5));
        running--;
        return read();
      };
      return blob;
    };
    await decodeImages(Array.from({ length: 12 }, slow), { concurrency: 3 });
    expect(most).toBe(3);
  });

  it('names the picture that failed and stops', async () => {
    let read = 0;
    const counted = (): ImageInput => {
      const blob = new Blob([readFileSync(file('rgb8.png'))]);
      const original = blob.arrayBuffer.bind(blob);
      blob.arrayBuffer = () => {
        read++;
        return original();
      };
      return blob;
    };
    const inputs = [counted(), Buffer.from('broken'), ...Array.from({ length: 20 }, counted)];
    await expect(decodeImages(inputs, { concurrency: 1 })).rejects.toMatchObject({
      code: 'ERR_SIGLIP_IMAGE',
      message: expect.stringContaining('images[1]'),
    });
    expect(read).toBe(1);
  });

  it('checks every input before reading the first', async () => {
    const unread = new Blob([]);
    unread.arrayBuffer = () => {
      throw new Error('was read');
    };
    await expect(decodeImages([unread, 7 as never])).rejects.toThrow(/^images\[1\]: expected/);
    await expect(decodeImages([], { concurrency: 0 })).rejects.toBeInstanceOf(RangeError);
  });

  it('stops when the signal fires', async () => {
    const controller = new AbortController();
    const last = new Blob([readFileSync(file('rgb8.png'))]);
    const original = last.arrayBuffer.bind(last);
    last.arrayBuffer = () => {
      controller.abort();
      return original();
    };
    await expect(
      decodeImages([last, file('rgb8.png')], { concurrency: 1, signal: controller.signal }),
    ).rejects.toMatchObject({ code: 'ERR_SIGLIP_ABORTED' });
  });
});

/** A PNG that claims a size, with too little data for it. */
function png(width: number, height: number): Buffer {
  const chunk = (kind: string, data: Buffer): Buffer => {
    const body = Buffer.concat([Buffer.from(kind), data]);
    const framed = Buffer.alloc(body.length + 8);
    framed.writeUInt32BE(data.length, 0);
    body.copy(framed, 4);
    framed.writeUInt32BE(crc32(body), body.length + 4);
    return framed;
  };
  const header = Buffer.from([0, 0, 0, 0, 0, 0, 0, 0, 8, 2, 0, 0, 0]);
  header.writeUInt32BE(width, 0);
  header.writeUInt32BE(height, 4);
  return Buffer.concat([
    Buffer.from('\x89PNG\r\n\x1a\n', 'latin1'),
    chunk('IHDR', header),
    chunk('IDAT', deflateSync(Buffer.alloc(100))),
    chunk('IEND', Buffer.alloc(0)),
  ]);
}

function crc32(bytes: Buffer): number {
  let crc = ~0;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? 0xedb88320 : 0);
  }
  return ~crc >>> 0;
}
