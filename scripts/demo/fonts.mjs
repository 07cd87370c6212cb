/** Which letters this machine can draw. */
import sharp from 'sharp';

const cell = 64;
/**
 * Code points that no script uses: what is drawn in their place is the box that stands for a missing letter, with the
 * four or six digits of its number in it.
 */
const unassigned = ['\u0378', '\u{10fffe}'];

/** The boxes around what is drawn for each character, as strings that can be compared; '' for nothing. */
async function inkBoxes(characters) {
  const texts = characters.map(
    (character, i) => `<text x="${i * cell + 12}" y="44" font-family="sans-serif" font-size="28">${character}</text>`,
  );
  const width = cell * characters.length;
  const svg = `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${cell}">${texts.join('')}</svg>`;
  const alpha = await sharp(Buffer.from(svg)).ensureAlpha().extractChannel(3).raw().toBuffer();
  return characters.map((_, i) => {
    const [xs, ys] = [[], []];
    for (let y = 0; y < cell; y++)
      for (let x = 0; x < cell; x++) {
        if (alpha[y * width + i * cell + x] < 64) continue;
        xs.push(x);
        ys.push(y);
      }
    return xs.length === 0 ? '' : [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)].join(' ');
  });
}

/** Whether fonts of this machine have every letter of a text; letters without one would be drawn as boxes. */
export async function canDraw(text) {
  const letters = [...new Set(text.match(/\p{L}/gu) ?? [])];
  const boxes = await inkBoxes([...unassigned, ...letters]);
  const missing = boxes.splice(0, unassigned.length);
  return boxes.every((box) => box !== '' && !missing.includes(box));
}
