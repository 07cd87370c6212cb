/** Random changes of pictures that leave what they show as it is. */
import { requireInteger, requireNumber, requireOptions, wrongRange, wrongType } from '../../arguments.js';
import type { RawImage } from '../../processing/decode.js';
import type { RandomStream } from './random.js';
import { type Drawing, draw, type LayerPyramid, levelFor } from './warp.js';

/** What is seen through a transparent picture and around it. */
export type BackgroundKind = 'white' | 'light' | 'dark' | 'any';

/**
 * How pictures are changed. Each is drawn onto a canvas of a random shape, at a random size and place, turned and
 * recoloured, with everything drawn anew whenever it comes. Without an option the picture is left alone in that respect.
 */
export interface AugmentOptions {
  /** Longer side of the canvas in pixels. */
  size: number;
  /** Backgrounds, one of which is drawn with equal chances (a repeated one more often); default white alone. */
  background?: readonly BackgroundKind[];
  /** Size of the picture against the largest that fits onto the canvas: from, to; default [1, 1]. */
  scale?: readonly [from: number, to: number];
  /** Largest factor by which the canvas, and the picture on it, are made wider or higher; default 1. */
  aspectRatio?: number;
  /** Largest rotation either way, in degrees; default 0. */
  rotation?: number;
  /** Largest relative change of brightness, contrast and saturation either way; default 0. */
  brightness?: number;
  contrast?: number;
  saturation?: number;
  /** Largest rotation of hues either way, in degrees; default 0. */
  hue?: number;
  /** Share of pictures that lose their colours, are mirrored, are blurred; default 0. */
  greyscale?: number;
  mirror?: number;
  blur?: number;
}

const backgroundKinds: readonly BackgroundKind[] = ['white', 'light', 'dark', 'any'];
const shares = ['greyscale', 'mirror', 'blur'] as const;
const changes = ['brightness', 'contrast', 'saturation'] as const;
const largestCanvas = 4096;

/** Options with every default. */
type Settings = Required<AugmentOptions>;

/** Draws pictures as its options say. */
export interface Augmentation {
  /** Draws a picture, which needs no pixels of the sizes before {@link smallestLevel}. */
  draw: (picture: LayerPyramid, random: RandomStream) => RawImage;
  /** The least {@link levelFor} of all drawings of a picture of this size, whatever is drawn at random. */
  smallestLevel: (width: number, height: number) => number;
}

/**
 * Checks options and makes of them what draws pictures.
 * @throws TypeError, RangeError naming the option
 */
export function augmentation(argument: string, options: AugmentOptions): Augmentation {
  const settings = checkOptions(argument, options);
  return {
    draw: (picture, random) => draw(picture, chooseDrawing(picture, settings, random)),
    smallestLevel: (width, height) => levelFor(largestScale(width, height, settings), 0),
  };
}

/** No picture of this size is drawn larger than this: canvas pixels for a pixel of its own, along either side. */
function largestScale(width: number, height: number, { size, scale, aspectRatio }: Settings): number {
  // The canvas is at most this much of its longer side, and a pixel where that rounds up; the picture at most fills it.
  const along = (side: number, other: number): number => (size * Math.min(1, (aspectRatio * side) / other) + 1) / side;
  return scale[1] * Math.max(along(width, height), along(height, width));
}

function checkOptions(argument: string, options: AugmentOptions): Settings {
  const given = requireOptions(argument, options, [
    'size',
    'background',
    'scale',
    'aspectRatio',
    'rotation',
    ...changes,
    'hue',
    ...shares,
  ]);
  const number = (key: keyof AugmentOptions, fallback: number, least: number, most: number): number =>
    boundedNumber(`${argument}.${key}`, given[key] ?? fallback, least, most);
  const { background = ['white'], scale = [1, 1] } = given;
  if (
    !Array.isArray(background) ||
    background.length === 0 ||
    !background.every((kind) => backgroundKinds.includes(kind))
  )
    throw wrongRange(`${argument}.background`, `a list of ${backgroundKinds.join(', ')}`, background);
  if (!Array.isArray(scale) || scale.length !== 2) throw wrongType(`${argument}.scale`, 'two numbers', scale);
  const [from, to] = scale.map((value, i) => boundedNumber(`${argument}.scale[${i}]`, value, 0.01, 100)) as [
    number,
    number,
  ];
  if (to < from) throw wrongRange(`${argument}.scale`, 'the smaller number first', scale);
  return {
    size: requireInteger(`${argument}.size`, given.size, 1, largestCanvas),
    background: background as BackgroundKind[],
    scale: [from, to],
    aspectRatio: number('aspectRatio', 1, 1, 10),
    rotation: number('rotation', 0, 0, 180),
    brightness: number('brightness', 0, 0, 1),
    contrast: number('contrast', 0, 0, 1),
    saturation: number('saturation', 0, 0, 1),
    hue: number('hue', 0, 0, 180),
    greyscale: number('greyscale', 0, 0, 1),
    mirror: number('mirror', 0, 0, 1),
    blur: number('blur', 0, 0, 1),
  };
}

function boundedNumber(argument: string, value: unknown, least: number, most: number): number {
  return requireNumber(
    argument,
    value,
    `a number from ${least} to ${most}`,
    (number) => number >= least && number <= most,
  );
}

/** A factor between 1/most and most, as likely below 1 as above. */
function factor(most: number, random: RandomStream): number {
  return most ** random.between(-1, 1);
}

function chooseDrawing(picture: LayerPyramid, settings: Settings, random: RandomStream): Drawing {
  const { width: pictureWidth, height: pictureHeight } = picture;
  const shape = (pictureWidth / pictureHeight) * factor(settings.aspectRatio, random);
  const width = Math.max(1, Math.round(settings.size * Math.min(1, shape)));
  const height = Math.max(1, Math.round(settings.size / Math.max(1, shape)));
  const stretch = Math.sqrt(factor(settings.aspectRatio, random));
  const largest = Math.min(width / (pictureWidth * stretch), (height * stretch) / pictureHeight);
  const size = largest * random.between(...settings.scale);
  const scale: [number, number] = [size * stretch, size / stretch];
  // Anywhere that leaves all of it on the canvas; a picture that is larger covers all of the canvas, wherever it lies.
  const place = (room: number): number => room / 2 + Math.abs(room / 2) * random.between(-1, 1);
  const [drawnWidth, drawnHeight] = [pictureWidth * scale[0], pictureHeight * scale[1]];
  const center: [number, number] = [
    place(width - drawnWidth) + drawnWidth / 2,
    place(height - drawnHeight) + drawnHeight / 2,
  ];
  const rotation = (settings.rotation * Math.PI * random.between(-1, 1)) / 180;
  const colors = chooseColors(settings, random);
  const background = chooseBackground(settings.background, random);
  if (random.fraction() < settings.mirror) scale[0] = -scale[0];
  return {
    width,
    height,
    center,
    scale,
    rotation,
    colors,
    background,
    blur: random.fraction() < settings.blur ? 1 : 0,
  };
}

/** Weights of red, green and blue in brightness (ITU-R BT.601). */
const luma = [0.299, 0.587, 0.114] as const;

/** Hue, saturation, contrast and brightness as one matrix: three rows of three factors and a constant. */
function chooseColors(settings: Settings, random: RandomStream): Float64Array {
  const change = (most: number): number => 1 + most * random.between(-1, 1);
  const brightness = change(settings.brightness);
  const contrast = change(settings.contrast);
  let saturation = change(settings.saturation);
  const angle = (settings.hue * Math.PI * random.between(-1, 1)) / 180;
  if (random.fraction() < settings.greyscale) saturation = 0;
  // Hues turn around the grey axis (Rodrigues' formula); saturation is the distance from a grey of equal brightness.
  const [cosine, sine] = [Math.cos(angle), Math.sin(angle) / Math.sqrt(3)];
  const third = (1 - cosine) / 3;
  const turn = [
    [third + cosine, third - sine, third + sine],
    [third + sine, third + cosine, third - sine],
    [third - sine, third + sine, third + cosine],
  ] as const;
  const grey = [0, 1, 2].map((c) => luma[0] * turn[0][c]! + luma[1] * turn[1][c]! + luma[2] * turn[2][c]!);
  const gain = brightness * contrast;
  const matrix = new Float64Array(12);
  turn.forEach((row, r) => {
    for (let c = 0; c < 3; c++) matrix[4 * r + c] = gain * (saturation * row[c]! + (1 - saturation) * grey[c]!);
    matrix[4 * r + 3] = 127.5 * brightness * (1 - contrast);
  });
  return matrix;
}

/** An even colour or, as often, one that changes to another across the canvas. */
function chooseBackground(kinds: readonly BackgroundKind[], random: RandomStream): Drawing['background'] {
  const kind = kinds[random.below(kinds.length)] as BackgroundKind;
  const bounds = { white: [255, 255], light: [200, 255], dark: [0, 80], any: [0, 255] }[kind] as [number, number];
  const color = (): number[] => Array.from({ length: 3 }, () => random.between(...bounds));
  const start = color();
  if (random.fraction() < 0.5) return [start, [0, 0, 0], [0, 0, 0]];
  const change = color().map((value, c) => value - start[c]!);
  const share = random.fraction();
  return [start, change.map((value) => share * value), change.map((value) => (1 - share) * value)];
}
