/**
 * The first frame of a GIF, as one plain picture.
 *
 * GIF decoders disagree about what is not painted: browsers and libvips show transparent pixels and the canvas around
 * a small first frame as transparent (black once alpha is dropped), Pillow as the colour of a palette entry. To get
 * Pillow's pixels from libvips, the first frame is cut out into a GIF of its own without transparency, decoded, and
 * placed on a canvas of the right colour. Only block headers are read here, following the GIF89a specification; the
 * compressed data is left to the decoder.
 */

/** A frame cut out of a GIF, and where it belongs. */
export interface GifFrame {
  /** A complete single-frame GIF of `frameWidth` × `frameHeight` without transparency. */
  bytes: Uint8Array;
  left: number;
  top: number;
  frameWidth: number;
  frameHeight: number;
  /** Size of the whole picture: the logical screen, enlarged when the frame reaches beyond it. */
  width: number;
  height: number;
  /** RGB of the canvas around the frame: the transparent colour where there is one, else the first palette entry. */
  background: [red: number, green: number, blue: number];
}

const imageSeparator = 0x2c;
const extensionIntroducer = 0x21;
const trailer = 0x3b;
const graphicControl = 0xf9;
const interlaced = 0x40;

/** Whether the bytes begin like a GIF. */
export function isGif(bytes: Uint8Array): boolean {
  const signature = String.fromCharCode(...bytes.subarray(0, 6));
  return signature === 'GIF87a' || signature === 'GIF89a';
}

/**
 * Cuts the first frame out of a GIF.
 *
 * @throws Error with a short reason when the file ends early or holds no frame.
 */
export function firstGifFrame(bytes: Uint8Array): GifFrame {
  const byte = (position: number): number => {
    const value = bytes[position];
    if (value === undefined) throw new Error('the GIF ends before its first frame');
    return value;
  };
  const word = (position: number): number => byte(position) | (byte(position + 1) << 8);
  const skipSubBlocks = (from: number): number => {
    let position = from;
    while (byte(position) !== 0) position += byte(position) + 1;
    return position + 1;
  };

  const screenFlags = byte(10);
  const globalPaletteBytes = screenFlags & 0x80 ? 3 << ((screenFlags & 7) + 1) : 0;
  let position = 13 + globalPaletteBytes;
  let transparent: number | undefined;
  while (byte(position) !== imageSeparator) {
    const introducer = byte(position);
    if (introducer === trailer) throw new Error('the GIF holds no frame');
    if (introducer !== extensionIntroducer) {
      // Stray bytes between blocks are skipped, as other decoders do.
      position += 1;
      continue;
    }
    if (byte(position + 1) === graphicControl && byte(position + 2) >= 4 && byte(position + 3) & 1)
      transparent = byte(position + 6);
    position = skipSubBlocks(position + 2);
  }

  const descriptor = position;
  const [left, top, frameWidth, frameHeight] = [1, 3, 5, 7].map((offset) => word(descriptor + offset)) as [
    number,
    number,
    number,
    number,
  ];
  const frameFlags = byte(descriptor + 9);
  const localPaletteBytes = frameFlags & 0x80 ? 3 << ((frameFlags & 7) + 1) : 0;
  const dataStart = descriptor + 10 + localPaletteBytes;
  let dataEnd = bytes.length;
  try {
    dataEnd = skipSubBlocks(dataStart + 1);
  } catch {
    // Truncated inside the compressed data: the decoder judges what is there.
  }

  const palette = new Uint8Array(256 * 3);
  if (localPaletteBytes > 0) palette.set(bytes.subarray(descriptor + 10, dataStart));
  else if (globalPaletteBytes > 0) palette.set(bytes.subarray(13, 13 + globalPaletteBytes));
  // Without any palette, an index stands for that grey; past the end of one, for black.
  else for (let i = 0; i < palette.length; i++) palette[i] = Math.trunc(i / 3);
  const index = (transparent ?? 0) * 3;

  const data = bytes.subarray(dataStart, dataEnd);
  const single = new Uint8Array(13 + palette.length + 10 + data.length + 1);
  const view = new DataView(single.buffer);
  single.set(bytes.subarray(0, 6));
  view.setUint16(6, frameWidth, true);
  view.setUint16(8, frameHeight, true);
  single[10] = 0xf7; // a palette of 256 colours for the whole picture
  single.set(palette, 13);
  const start = 13 + palette.length;
  single[start] = imageSeparator;
  view.setUint16(start + 5, frameWidth, true);
  view.setUint16(start + 7, frameHeight, true);
  single[start + 9] = frameFlags & interlaced;
  single.set(data, start + 10);
  single[single.length - 1] = trailer;
  return {
    bytes: single,
    left,
    top,
    frameWidth,
    frameHeight,
    width: Math.max(word(6), left + frameWidth),
    height: Math.max(word(8), top + frameHeight),
    background: [palette[index]!, palette[index + 1]!, palette[index + 2]!],
  };
}

/** Places a decoded frame (RGB) on its canvas. */
export function placeGifFrame(frame: GifFrame, rgb: Uint8Array): Uint8Array {
  if (frame.width === frame.frameWidth && frame.height === frame.frameHeight) return rgb;
  const canvas = new Uint8Array(frame.width * frame.height * 3);
  const [red, green, blue] = frame.background;
  if (red === green && green === blue) canvas.fill(red);
  else for (let i = 0; i < canvas.length; i++) canvas[i] = frame.background[(i % 3) as 0 | 1 | 2];
  const rowBytes = frame.frameWidth * 3;
  for (let y = 0; y < frame.frameHeight; y++)
    canvas.set(rgb.subarray(y * rowBytes, (y + 1) * rowBytes), ((frame.top + y) * frame.width + frame.left) * 3);
  return canvas;
}
