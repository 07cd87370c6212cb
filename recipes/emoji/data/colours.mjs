/** Colours as SVG writes them, and their hue, saturation and lightness. */

/** Six hexadecimal digits of the names that the drawings use. */
const named = {
  black: '000000',
  white: 'ffffff',
  red: 'ff0000',
  green: '008000',
  navy: '000080',
  azure: 'f0ffff',
};

/** Finds every colour that an attribute or a style of SVG text gives: its first group is what stands before it. */
export const colourPattern = new RegExp(
  `((?:fill|stroke|stop-color)(?:="|:\\s*))(#[0-9a-f]{6}|#[0-9a-f]{3}|${Object.keys(named).join('|')})\\b`,
  'gi',
);

/**
 * Hue, saturation and lightness of a colour.
 *
 * @param {string} colour `#rrggbb`, `#rgb` or one of a few names
 * @returns {[hue: number, saturation: number, lightness: number]} degrees, and two numbers from 0 to 1
 */
export function hueSaturationLightness(colour) {
  let digits = named[colour.toLowerCase()] ?? colour.slice(1);
  if (digits.length === 3) digits = [...digits].map((digit) => digit + digit).join('');
  const [red, green, blue] = [0, 2, 4].map((at) => Number.parseInt(digits.slice(at, at + 2), 16) / 255);
  const most = Math.max(red, green, blue);
  const range = most - Math.min(red, green, blue);
  const lightness = most - range / 2;
  if (range === 0) return [0, 0, lightness];
  let sixth = 4 + (red - green) / range;
  if (most === red) sixth = (green - blue) / range;
  else if (most === green) sixth = 2 + (blue - red) / range;
  return [(sixth * 60 + 360) % 360, range / (1 - Math.abs(2 * lightness - 1)), lightness];
}

/**
 * The inverse of {@link hueSaturationLightness}. Saturation and lightness beyond their range are cut to it.
 *
 * @param {number} hue in degrees, any number
 * @param {number} saturation from 0 to 1
 * @param {number} lightness from 0 to 1
 * @returns {string} `#rrggbb`
 */
export function colourOf(hue, saturation, lightness) {
  const [s, l] = [saturation, lightness].map((value) => Math.min(1, Math.max(0, value)));
  const channel = (offset) => {
    // Every channel is the same trapezoid over the hues, moved by a third of the circle.
    const place = (((offset + hue / 30) % 12) + 12) % 12;
    const value = l - s * Math.min(l, 1 - l) * Math.max(-1, Math.min(place - 3, 9 - place, 1));
    return Math.round(value * 255)
      .toString(16)
      .padStart(2, '0');
  };
  return `#${channel(0)}${channel(8)}${channel(4)}`;
}
