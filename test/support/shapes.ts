/** Generated pictures with captions: coloured shapes at five places on backgrounds of their own. */
import type { RawImage } from '../../lib/index.js';
import { Random } from './random.js';

const colours = {
  red: [220, 40, 40],
  green: [40, 170, 60],
  blue: [50, 70, 220],
  yellow: [235, 215, 50],
  purple: [150, 50, 190],
  orange: [240, 140, 30],
  white: [245, 245, 245],
  black: [15, 15, 15],
} as const;
const colourNames = Object.keys(colours) as (keyof typeof colours)[];
const places = { left: [-1, 0], right: [1, 0], top: [0, -1], bottom: [0, 1], middle: [0, 0] } as const;
const placeNames = Object.keys(places) as (keyof typeof places)[];
/** Whether a point, in units of the shape's size from its centre, belongs to it. */
const forms: Record<string, (x: number, y: number) => boolean> = {
  circle: (x, y) => x * x + y * y < 1,
  square: (x, y) => Math.abs(x) < 0.9 && Math.abs(y) < 0.9,
  triangle: (x, y) => y < 0.9 && y > 2 * Math.abs(x) - 1,
  cross: (x, y) => Math.min(Math.abs(x), Math.abs(y)) < 0.3 && Math.max(Math.abs(x), Math.abs(y)) < 1,
  ring: (x, y) => x * x + y * y < 1 && x * x + y * y > 0.36,
  stripe: (x, y) => Math.abs(y) < 0.3 && Math.abs(x) < 1,
};
const formNames = Object.keys(forms);

/** What a picture shows. */
export interface Scene {
  colour: keyof typeof colours;
  form: string;
  place: keyof typeof places;
}

/** All scenes; `held` says which have a pair of colour and form that training never shows. */
export function allScenes(): { scene: Scene; held: boolean }[] {
  return formNames.flatMap((form, f) =>
    colourNames.flatMap((colour, c) =>
      placeNames.map((place) => ({
        scene: { colour, form, place },
        // Two colours of each form, so that a colour is held back in one or two forms.
        held: [f, (f + 3) % colourNames.length].includes(c),
      })),
    ),
  );
}

/** The caption of a scene. */
export function captionOf({ colour, form, place }: Scene): string {
  return `a ${colour} ${form} ${place === 'middle' ? 'in the middle' : `at the ${place}`}`;
}

/** A picture of a scene, different for every state of `random`: background, noise, place and size within limits. */
export function pictureOf({ colour, form, place }: Scene, random: Random, side = 48): RawImage {
  const data = new Uint8Array(side * side * 3);
  const background = [0, 0, 0].map(() => random.integer(90, 170));
  const [dx, dy] = places[place];
  const jitter = (): number => (random.next() - 0.5) * 0.08 * side;
  const centre = [side * (0.5 + 0.24 * dx) + jitter(), side * (0.5 + 0.24 * dy) + jitter()] as const;
  const radius = side * (0.15 + 0.1 * random.next());
  for (let y = 0; y < side; y++)
    for (let x = 0; x < side; x++) {
      const inside = forms[form]?.((x + 0.5 - centre[0]) / radius, (y + 0.5 - centre[1]) / radius);
      for (let channel = 0; channel < 3; channel++) {
        const value = inside ? (colours[colour][channel] as number) : (background[channel] as number);
        data[(y * side + x) * 3 + channel] = Math.max(0, Math.min(255, value + random.integer(-12, 12)));
      }
    }
  return { data, width: side, height: side, channels: 3 };
}
