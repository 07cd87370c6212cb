/**
 * Drawings drawn anew: the same SVG in other shades, its shapes a little moved, turned and stretched, with outlines or as
 * lines. A few styles are few hands; a network that sees each of their drawings hundreds of times learns those drawings by
 * heart, and not what drawings of a thing have in common (docs/emoji.md).
 */
import { colourOf, colourPattern, hueSaturationLightness } from './colours.mjs';
import { randomIntegers } from './random.mjs';

/** How often every drawing is drawn anew. */
export const redraws = 3;

/** Elements that paint something of their own. */
const shapes = new Set(['path', 'circle', 'ellipse', 'rect', 'polygon', 'polyline', 'line']);

/** Elements whose content is only used elsewhere: there, a moved shape would cut or fill the wrong thing. */
const hidden = new Set(['defs', 'clipPath', 'mask', 'symbol', 'filter', 'linearGradient', 'radialGradient', 'pattern']);

/** How far a shape goes at most: moved, in lengths of the drawing; turned, in degrees; stretched, as a logarithm. */
const most = { moved: 0.025, turned: 7, stretched: 0.08 };

/** Paint that is lighter than this becomes nearly white in a drawing of lines; darker paint stays: pupils, and hair. */
const darkPaint = 0.28;

/** Names in which a colour tells one emoji from another. Drawings of lines have none. */
const colourNames =
  /\b(red|orange|yellow|green|blue|purple|brown|black|white|gr[ae]y|pink|heart|circle|square|flag)\b/i;

/**
 * A drawing drawn anew. The first time it only has other shades and shapes; the second it has outlines too, of every shape
 * or around the whole; the third is half of the time a drawing of lines, unless its colours matter, and like the others else.
 *
 * @param {{ svg: string, size: number }} drawing SVG, and the longer side of its view box
 * @param {object} options
 * @param {number} options.time from 1 to {@link redraws}
 * @param {string} options.name of the emoji in English
 * @param {string} options.seed decides every draw
 * @returns {{ svg: string, size: number }} with a margin for what grew
 */
export function redraw({ svg, size }, { time, name, seed }) {
  const below = randomIntegers(seed);
  const between = (low, high) => low + ((high - low) * below(2 ** 24)) / 2 ** 24;
  const manner = mannerOf(time, colourNames.test(name), below);
  const recolour = shadesOf(manner, between);
  const strength = between(0.2, 1);
  const outline = {
    width: between(0.008, 0.04) * size,
    colour: below(2) === 0 ? '#000000' : colourOf(between(0, 360), between(0, 0.5), between(0.08, 0.25)),
  };
  const tags = svg.replace(colourPattern, (_, before, colour) => before + recolour(colour)).split(/(?=<)|(?<=>)/);
  const body = [];
  let depth = 0;
  for (const tag of tags) {
    const [, closing, element] = /^<(\/?)([A-Za-z]+)/.exec(tag) ?? [];
    const empty = tag.endsWith('/>');
    if (hidden.has(element) && !empty) depth += closing ? -1 : 1;
    if (depth > 0 || !shapes.has(element) || !empty) {
      body.push(tag);
      continue;
    }
    const drawn = manner === 'outlined' || manner === 'lines' ? outlined(tag, outline) : tag;
    body.push(`<g transform="${wobble(tag, size, strength, between)}">${drawn}</g>`);
  }
  const whole = body.join('');
  return withMargin(manner === 'silhouette' ? withSilhouette(whole, outline) : whole, size);
}

function mannerOf(time, colourMatters, below) {
  const outlines = below(2) === 0 ? 'outlined' : 'silhouette';
  if (time === 1) return 'shades';
  if (time === 2) return outlines;
  const other = below(2) === 0 ? 'shades' : outlines;
  return below(2) === 0 && !colourMatters ? 'lines' : other;
}

/** What becomes of colours: of all in the same way, and of each a little more in its own. */
function shadesOf(manner, between) {
  const hueShift = between(-10, 10);
  const saturationFactor = 2 ** between(-0.7, 0.5);
  const lightnessPower = 2 ** between(-0.5, 0.5);
  const becomes = new Map();
  return (colour) => {
    if (!becomes.has(colour)) {
      const [hue, saturation, lightness] = hueSaturationLightness(colour);
      const [ownHue, ownLightness] = [between(-5, 5), between(-0.04, 0.04)];
      const paper = manner === 'lines' && lightness > darkPaint;
      becomes.set(
        colour,
        paper
          ? colourOf(hue, saturation * 0.3, 1 - (1 - lightness) * 0.1)
          : colourOf(
              hue + hueShift + ownHue,
              saturation * saturationFactor,
              lightness ** lightnessPower + ownLightness,
            ),
      );
    }
    return becomes.get(colour);
  };
}

/** A transformation of a shape about a point of it. */
function wobble(tag, size, strength, between) {
  const [x, y] = pointOf(tag);
  const part = (limit) => between(-limit, limit) * strength;
  const [right, down] = [part(most.moved * size), part(most.moved * size)];
  const [width, height] = [Math.exp(part(most.stretched)), Math.exp(part(most.stretched))];
  const numbers = [x + right, y + down, part(most.turned), width, height, -x, -y].map((value) => value.toFixed(3));
  return `translate(${numbers[0]} ${numbers[1]}) rotate(${numbers[2]}) scale(${numbers[3]} ${numbers[4]}) translate(${numbers[5]} ${numbers[6]})`;
}

/** A point of a shape: its centre where that stands there, else where its line begins. */
function pointOf(tag) {
  const attribute = (name) => new RegExp(`\\s${name}="\\s*([^"]*)"`).exec(tag)?.[1];
  const number = (name) => Number.parseFloat(attribute(name) ?? '0');
  if (/^<(circle|ellipse)/.test(tag)) return [number('cx'), number('cy')];
  if (tag.startsWith('<rect')) return [number('x') + number('width') / 2, number('y') + number('height') / 2];
  if (tag.startsWith('<line')) return [number('x1'), number('y1')];
  const start = (attribute('d') ?? attribute('points') ?? '').match(/-?(\d+\.?\d*|\.\d+)(e-?\d+)?/gi) ?? [];
  return [Number(start[0] ?? 0), Number(start[1] ?? 0)];
}

/** A shape with a line around it, unless it has one, is no area or can hardly be seen. */
function outlined(tag, { width, colour }) {
  const faint = Number.parseFloat(/\sopacity="([^"]*)"/.exec(tag)?.[1] ?? '1') < 0.5;
  if (faint || /\s(stroke[a-z-]*|fill-opacity)="/.test(tag) || /fill="none"/.test(tag)) return tag;
  const line = ` stroke="${colour}" stroke-width="${width.toFixed(3)}" stroke-linejoin="round" stroke-linecap="round"/>`;
  return tag.replace(/\s*\/>$/, line);
}

/**
 * A line around the whole drawing: beneath it lies the same in the colour of the line alone, grown by lines around every
 * shape. (A filter that grows the drawing would say the same, and takes thirty times as long to render.)
 */
function withSilhouette(svg, { width, colour }) {
  const beneath = { width: 2 * width, colour };
  return svg.replace(/^(.*?<svg[^>]*>)(.*)(<\/svg>\s*)$/s, (_, start, inner, end) => {
    const grown = inner
      .replace(/\s(id|stroke(-[a-z]+)?|opacity)="[^"]*"/g, '')
      .replace(/(fill(?:="|:\s*))(?!none)[^";]+/g, (__, before) => before + colour)
      .replace(/<[^>]*\/>/g, (tag) => (shapes.has(/^<([A-Za-z]+)/.exec(tag)[1]) ? outlined(tag, beneath) : tag));
    return start + grown + inner + end;
  });
}

/** SVG with a margin of a tenth on every side. */
function withMargin(svg, size) {
  const margin = size / 10;
  return {
    svg: svg.replace(/\sviewBox="([^"]*)"/, (_, box) => {
      const [x, y, width, height] = box
        .trim()
        .split(/[\s,]+/)
        .map(Number);
      return ` viewBox="${x - margin} ${y - margin} ${width + 2 * margin} ${height + 2 * margin}"`;
    }),
    size: size + 2 * margin,
  };
}
