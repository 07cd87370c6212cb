/** Draws a picture onto a coloured canvas: moved, scaled, turned, recoloured, with its transparency. */
import type { RawImage } from '../../processing/decode.js';

/** Pixels with transparency: colours multiplied by it, red, green, blue, alpha, 0 to 255, row by row. */
interface Layer {
  data: Uint8Array;
  width: number;
  height: number;
}

/** A picture, and itself at half, a quarter … of its size, rounded down: at most {@link mostLevels} sizes. */
export interface LayerPyramid {
  /** Pixels of the picture along its sides. */
  width: number;
  height: number;
  levels: number;
  /** How many of the first sizes have no pixels here. */
  spared: number;
  /** Layers of the other sizes, one after another. */
  data: Uint8Array;
}

const mostLevels = 4;

/** How a picture is drawn. */
export interface Drawing {
  /** Pixels of the canvas. */
  width: number;
  height: number;
  /** Place of the picture's centre on the canvas, in pixels from its upper left corner. */
  center: readonly [x: number, y: number];
  /** Canvas pixels for a pixel of the picture, along its width and height; below 0 for a mirrored one. */
  scale: readonly [x: number, y: number];
  /** Clockwise, in radians. */
  rotation: number;
  /** From red, green, blue to red, green, blue: three rows of three factors and a constant, for values from 0 to 255. */
  colors: ArrayLike<number>;
  /** Red, green, blue of the canvas in its upper left corner, and how much they change to the right and downwards, in all. */
  background: readonly [start: readonly number[], right: readonly number[], down: readonly number[]];
  /** How much coarser than needed a size of the picture is taken: 0 for sharp drawings. */
  blur: number;
}

/**
 * Multiplies colours by transparency and makes the smaller sizes.
 *
 * @param smallestLevel of all drawings that will be made, by {@link levelFor}: the sizes before it get no pixels
 */
export function layerPyramid(rgba: Uint8Array, width: number, height: number, smallestLevel = 0): LayerPyramid {
  const data = new Uint8Array(rgba.length);
  for (let i = 0; i < rgba.length; i += 4) {
    const alpha = rgba[i + 3]!;
    for (let c = 0; c < 3; c++) data[i + c] = Math.round((rgba[i + c]! * alpha) / 255);
    data[i + 3] = alpha;
  }
  const layers: Layer[] = [{ data, width, height }];
  while (layers.length < mostLevels) {
    const last = layers[layers.length - 1] as Layer;
    if (Math.min(last.width, last.height) < 4) break;
    layers.push(halved(last));
  }
  const spared = Math.min(smallestLevel, layers.length - 1);
  const kept = layers.slice(spared).map((layer) => layer.data);
  return { width, height, levels: layers.length, spared, data: kept.length === 1 ? kept[0]! : Buffer.concat(kept) };
}

/** One of the sizes that have pixels. */
function layerOf({ width, height, spared, data }: LayerPyramid, level: number): Layer {
  const bytes = (at: number): number => (width >> at) * (height >> at) * 4;
  let start = 0;
  for (let before = spared; before < level; before++) start += bytes(before);
  return { data: data.subarray(start, start + bytes(level)), width: width >> level, height: height >> level };
}

/**
 * How often a picture's size is halved before it is drawn, if it has as many sizes.
 *
 * @param scale canvas pixels for a pixel of the picture, the larger one of width and height
 * @param blur of {@link Drawing}
 */
export function levelFor(scale: number, blur: number): number {
  return Math.floor(Math.log2(Math.max(1, 1 / scale)) + 0.5 + blur);
}

/** Means of squares of four pixels; a last odd row or column is left out. */
function halved({ data, width, height }: Layer): Layer {
  const halfWidth = width >> 1;
  const halfHeight = height >> 1;
  const half = new Uint8Array(halfWidth * halfHeight * 4);
  let to = 0;
  for (let y = 0; y < halfHeight; y++)
    for (let x = 0; x < halfWidth; x++) {
      const from = (2 * y * width + 2 * x) * 4;
      const below = from + 4 * width;
      for (let c = 0; c < 4; c++, to++)
        half[to] = (data[from + c]! + data[from + 4 + c]! + data[below + c]! + data[below + 4 + c]! + 2) >> 2;
    }
  return { data: half, width: halfWidth, height: halfHeight };
}

/** Draws a picture, with bilinear interpolation within the size that is nearest to what is drawn. */
export function draw(picture: LayerPyramid, drawing: Drawing): RawImage {
  const { width, height, center, scale, rotation, colors, background } = drawing;
  const wanted = levelFor(Math.max(Math.abs(scale[0]), Math.abs(scale[1])), drawing.blur);
  const layer = layerOf(picture, Math.min(wanted, picture.levels - 1));
  const { data } = layer;
  const [toX, toY] = [layer.width / (picture.width * scale[0]), layer.height / (picture.height * scale[1])];
  const [cosine, sine] = [Math.cos(rotation), Math.sin(rotation)];
  // Canvas to layer; half a pixel because colours belong to the middle of a pixel.
  const [ux, uy, vx, vy] = [cosine * toX, sine * toX, -sine * toY, cosine * toY];
  const u0 = layer.width / 2 - 0.5 + (0.5 - center[0]) * ux + (0.5 - center[1]) * uy;
  const v0 = layer.height / 2 - 0.5 + (0.5 - center[0]) * vx + (0.5 - center[1]) * vy;
  const m = Float64Array.from(colors);
  const [start, right, down] = background;
  const stride = layer.width * 4;
  const lastX = layer.width - 1;
  const lastY = layer.height - 1;
  const result = new Uint8Array(width * height * 3);
  let to = 0;
  for (let y = 0; y < height; y++) {
    const part = y / height;
    let [br, bg, bb] = [start[0]! + part * down[0]!, start[1]! + part * down[1]!, start[2]! + part * down[2]!];
    const [stepR, stepG, stepB] = [right[0]! / width, right[1]! / width, right[2]! / width];
    let u = u0 + y * uy;
    let v = v0 + y * vy;
    for (let x = 0; x < width; x++, to += 3, u += ux, v += vx, br += stepR, bg += stepG, bb += stepB) {
      let [red, green, blue] = [br, bg, bb];
      if (u > -1 && v > -1 && u < layer.width && v < layer.height) {
        const left = Math.floor(u);
        const top = Math.floor(v);
        const fu = u - left;
        const fv = v - top;
        // Outside of the picture there is nothing: its edges fade out over one pixel.
        const w00 = left < 0 || top < 0 ? 0 : (1 - fu) * (1 - fv);
        const w01 = left >= lastX || top < 0 ? 0 : fu * (1 - fv);
        const w10 = left < 0 || top >= lastY ? 0 : (1 - fu) * fv;
        const w11 = left >= lastX || top >= lastY ? 0 : fu * fv;
        const a = (top < 0 ? 0 : top) * stride + (left < 0 ? 0 : left) * 4;
        const b = left < 0 || left >= lastX ? a : a + 4;
        const c = top < 0 || top >= lastY ? a : a + stride;
        const d = c + (b - a);
        const r = w00 * data[a]! + w01 * data[b]! + w10 * data[c]! + w11 * data[d]!;
        const g = w00 * data[a + 1]! + w01 * data[b + 1]! + w10 * data[c + 1]! + w11 * data[d + 1]!;
        const bl = w00 * data[a + 2]! + w01 * data[b + 2]! + w10 * data[c + 2]! + w11 * data[d + 2]!;
        const alpha = (w00 * data[a + 3]! + w01 * data[b + 3]! + w10 * data[c + 3]! + w11 * data[d + 3]!) / 255;
        const shown = 1 - alpha;
        red = clip(m[0]! * r + m[1]! * g + m[2]! * bl + m[3]! * alpha, alpha) + shown * br;
        green = clip(m[4]! * r + m[5]! * g + m[6]! * bl + m[7]! * alpha, alpha) + shown * bg;
        blue = clip(m[8]! * r + m[9]! * g + m[10]! * bl + m[11]! * alpha, alpha) + shown * bb;
      }
      result[to] = red + 0.5;
      result[to + 1] = green + 0.5;
      result[to + 2] = blue + 0.5;
    }
  }
  return { data: result, width, height, channels: 3 };
}

/** A colour, multiplied by its transparency, within the bounds of that. */
function clip(value: number, alpha: number): number {
  const most = 255 * alpha;
  return value < 0 ? 0 : value > most ? most : value;
}
