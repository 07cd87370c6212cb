/**
 * Pixel formats to 8-bit RGB, with Pillow's arithmetic (`Image.convert("RGB")`). All buffers are interleaved, row by
 * row, without padding.
 */

/** Grey, grey + alpha, RGB or RGB + alpha samples to RGB: grey is repeated, alpha dropped. Always a fresh copy. */
export function toRgb(samples: Uint8Array | Uint8ClampedArray, channels: 1 | 2 | 3 | 4): Uint8Array {
  if (channels === 3) return new Uint8Array(samples);
  const pixels = samples.length / channels;
  const rgb = new Uint8Array(pixels * 3);
  const [green, blue] = channels === 4 ? [1, 2] : [0, 0];
  for (let from = 0, to = 0; to < rgb.length; from += channels, to += 3) {
    rgb[to] = samples[from]!;
    rgb[to + 1] = samples[from + green]!;
    rgb[to + 2] = samples[from + blue]!;
  }
  return rgb;
}

/**
 * Grey of more than 8 bits (integers or floats) to RGB by clipping to 0..255: Pillow converts its modes `I;16`, `I`
 * and `F` so, and does not scale them.
 */
export function clippedGreyToRgb(samples: Uint16Array | Float32Array): Uint8Array {
  const rgb = new Uint8Array(samples.length * 3);
  for (let from = 0, to = 0; to < rgb.length; from += 1, to += 3) {
    const grey = Math.max(0, Math.min(samples[from]!, 255));
    rgb[to] = grey;
    rgb[to + 1] = grey;
    rgb[to + 2] = grey;
  }
  return rgb;
}

/**
 * CMYK (255 = full ink) to RGB without colour management: `channel = K' - ink·K'/255` with `K' = 255 - black`, in
 * Pillow's integer form of the division by 255. `stride` is the samples of one pixel; those past the fourth are skipped.
 */
export function cmykToRgb(samples: Uint8Array | Uint16Array, stride: number): Uint8Array {
  const pixels = samples.length / stride;
  // 16-bit samples count by their high byte.
  const shift = samples instanceof Uint16Array ? 8 : 0;
  const rgb = new Uint8Array(pixels * 3);
  for (let from = 0, to = 0; to < rgb.length; from += stride, to += 3) {
    const light = 255 - (samples[from + 3]! >> shift);
    for (let channel = 0; channel < 3; channel++) {
      const product = (samples[from + channel]! >> shift) * light + 128;
      rgb[to + channel] = light - ((product + (product >> 8)) >> 8);
    }
  }
  return rgb;
}
