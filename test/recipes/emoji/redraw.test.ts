/** Drawings drawn anew: colours and SVG as text, and what they look like when they are rendered. */
import { describe, expect, it } from 'vitest';
import { colourOf, colourPattern, hueSaturationLightness } from '../../../recipes/emoji/data/colours.mjs';
import { renderDrawing } from '../../../recipes/emoji/data/pictures.mjs';
import { redraw, redraws } from '../../../recipes/emoji/data/redraw.mjs';

const drawing = (body: string) => ({
  svg: `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 64 64">${body}</svg>`,
  size: 64,
});

/** A yellow face with eyes, a mouth that is a line, and a shine. */
const face = drawing(
  '<circle cx="32" cy="32" r="28" fill="#ffcc4d"/>' +
    '<ellipse cx="22" cy="26" rx="4" ry="6" fill="#222"/><ellipse cx="42" cy="26" rx="4" ry="6" fill="#222"/>' +
    '<path d="M20 42Q32 54 44 42" fill="none" stroke="#664500" stroke-width="3"/>' +
    '<path d="M14 14h8v4z" fill="#fff" opacity=".2"/>',
);

const times = Array.from({ length: redraws }, (_, at) => at + 1);
const seeds = Array.from({ length: 24 }, (_, at) => `seed ${at}`);
const drawn = (time: number, seed: string, name = 'grinning face', from = face) => redraw(from, { time, name, seed });

describe('colours', () => {
  it.each([
    ['#ff0000', [0, 1, 0.5]],
    ['#0f0', [120, 1, 0.5]],
    ['#000080', [240, 1, 64 / 255]],
    ['white', [0, 0, 1]],
    ['#808080', [0, 0, 128 / 255]],
    ['#ff00ff', [300, 1, 0.5]],
  ] as const)('%s has hue, saturation and lightness %j', (colour, expected) => {
    for (const [at, value] of hueSaturationLightness(colour).entries()) expect(value).toBeCloseTo(expected[at]!, 2);
  });

  it('come back from hue, saturation and lightness', () => {
    for (let code = 0; code < 2 ** 24; code += 65_521) {
      const colour = `#${code.toString(16).padStart(6, '0')}`;
      expect(colourOf(...hueSaturationLightness(colour))).toBe(colour);
    }
  });

  it('are cut to what can be shown', () => {
    expect(colourOf(0, 3, 0.5)).toBe('#ff0000');
    expect(colourOf(-240, 1, 0.5)).toBe('#00ff00');
    expect(colourOf(77, 0.4, 1.5)).toBe('#ffffff');
  });

  it('are found in attributes and styles, and nowhere else', () => {
    const svg =
      '<a id="#fff" fill="#ABC" stroke="none" style="fill:#123456;stroke: navy" fill-rule="evenodd" href="#abc"/>';
    expect([...svg.matchAll(colourPattern)].map((found) => found[2])).toEqual(['#ABC', '#123456', 'navy']);
  });
});

describe('a drawing drawn anew', () => {
  it.each(times)('time %d, is decided by its seed, and another with every seed', (time) => {
    expect(drawn(time, 'a')).toEqual(drawn(time, 'a'));
    expect(new Set(seeds.map((seed) => drawn(time, seed).svg)).size).toBe(seeds.length);
  });

  it.each(times)('time %d, covers nearly what it covered', async (time) => {
    const before = await renderDrawing(face, { crop: true });
    for (const seed of seeds.slice(0, 8)) {
      const after = await renderDrawing(drawn(time, seed), { crop: true });
      let [either, both, changed] = [0, 0, 0];
      for (let at = 0; at < before.length; at += 4) {
        const [a, b] = [before[at + 3]! > 127, after[at + 3]! > 127];
        either += Number(a || b);
        both += Number(a && b);
        changed += Number([0, 1, 2].some((channel) => Math.abs(before[at + channel]! - after[at + channel]!) > 8));
      }
      expect(both / either, seed).toBeGreaterThan(0.85);
      expect(changed, seed).toBeGreaterThan(50);
    }
  });

  it('has no outlines the first time, and always some the second', () => {
    const lines = (svg: string) => svg.match(/stroke-width/g)?.length ?? 0;
    for (const seed of seeds) {
      expect(lines(drawn(1, seed).svg)).toBe(1);
      expect(lines(drawn(2, seed).svg)).toBeGreaterThan(1);
    }
  });

  it('is sometimes a drawing of lines the third time, unless colours are what it is about', async () => {
    const isPale = async (seed: string, name: string) => {
      const data = await renderDrawing(drawn(3, seed, name), { crop: true });
      // A cheek.
      return Math.min(...data.subarray((60 * 96 + 20) * 4).subarray(0, 3)) > 220;
    };
    const count = async (name: string) =>
      (await Promise.all(seeds.map((seed) => isPale(seed, name)))).filter(Boolean).length;
    const pale = await count('grinning face');
    expect(pale).toBeGreaterThan(4);
    expect(pale).toBeLessThan(20);
    for (const name of ['yellow circle', 'flag: Germany', 'Red Heart']) expect(await count(name)).toBe(0);
  });

  it('leaves alone what is only used elsewhere', () => {
    const clipped = drawing(
      '<defs><path id="p" d="M0 0h64v64z"/></defs><clipPath id="c"><use href="#p"/></clipPath>' +
        '<g clip-path="url(#c)"><path d="M5 5h9v9z" fill="#f00"/></g>',
    );
    for (const time of times)
      for (const seed of seeds) {
        const { svg } = drawn(time, seed, 'x', clipped);
        expect(svg).toContain(
          '<defs><path id="p" d="M0 0h64v64z"/></defs><clipPath id="c"><use href="#p"/></clipPath>',
        );
        expect(svg.match(/id="c"/g)).toHaveLength(1);
        expect(svg).toMatch(/<g clip-path="url\(#c\)"><g transform="[^"]+"><path d="M5 5h9v9z"/);
      }
  });

  it('has a margin for what grew', () => {
    const { svg, size } = drawn(2, 'a');
    expect(size).toBeCloseTo(76.8);
    expect(svg).toMatch(/viewBox="-6\.4 -6\.4 76\.8 76\.8"/);
  });
});
