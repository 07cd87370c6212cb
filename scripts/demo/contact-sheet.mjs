/** One picture with everything the demo has found. */
import { readFileSync } from 'node:fs';
import sharp from 'sharp';
import { canDraw } from './fonts.mjs';

const width = 1240;
const margin = 36;
const rowHeight = 128;
const pictureSize = 76;
const labelWidth = 316;
const family = "'Inter','Segoe UI','Helvetica Neue','Noto Sans','DejaVu Sans',sans-serif";
const ink = '#1c2330';
const faint = '#6b7484';
const accent = '#1a7f5a';

const escaped = (text) => text.replace(/[&<>"]/g, (sign) => `&#${sign.charCodeAt(0)};`);

function text(x, y, content, { size = 15, weight = 400, fill = ink, anchor = 'start' } = {}) {
  const style = `font-family="${family}" font-size="${size}" font-weight="${weight}" fill="${fill}" text-anchor="${anchor}"`;
  return `<text x="${x}" y="${y}" ${style}>${escaped(content)}</text>`;
}

function image(x, y, size, png) {
  const data = `data:image/png;base64,${png.toString('base64')}`;
  return `<image x="${x}" y="${y}" width="${size}" height="${size}" href="${data}"/>`;
}

function card(x, y, w, h, stroke = '#e1e5eb') {
  return `<rect x="${x}" y="${y}" width="${w}" height="${h}" rx="12" fill="#ffffff" stroke="${stroke}" stroke-width="1.5"/>`;
}

const percent = (probability) =>
  probability < 0.001 ? '<0.1 %' : `${(100 * probability).toFixed(probability < 0.1 ? 1 : 0)} %`;

/** A query as it can be drawn here: itself, or in Latin letters. */
async function drawable({ text: query, romanised }) {
  return romanised === undefined || (await canDraw(query)) ? query : romanised;
}

async function queryRow(y, { query, best }) {
  const { language, meaning } = query;
  const parts = [
    text(margin, y + 46, await drawable(query), { size: 24, weight: 700 }),
    text(margin, y + 74, meaning === undefined ? language : `${language}: “${meaning}”`, { fill: faint }),
  ];
  const step = (width - margin - labelWidth - margin + 12) / best.length;
  best.forEach(({ file, probability }, place) => {
    const x = margin + labelWidth + place * step;
    const strong = place === 0;
    parts.push(
      card(x, y + 6, step - 12, rowHeight - 14, strong ? accent : undefined),
      image(x + (step - 12 - pictureSize) / 2, y + 14, pictureSize, readFileSync(file)),
      text(x + (step - 12) / 2, y + rowHeight - 17, percent(probability), {
        size: 13,
        weight: strong ? 700 : 400,
        fill: strong ? accent : faint,
        anchor: 'middle',
      }),
    );
  });
  return parts;
}

function classificationCard(x, y, w, h, { file, labels }) {
  const parts = [
    card(x, y, w, h),
    text(x + 24, y + 38, 'Which label fits?', { size: 18, weight: 700 }),
    image(x + 24, y + 64, 150, readFileSync(file)),
  ];
  let line = y + 78;
  for (const { label, probability } of labels) {
    const length = Math.max(2, 190 * probability);
    parts.push(
      text(x + 286, line + 5, label, { anchor: 'end' }),
      `<rect x="${x + 300}" y="${line - 8}" width="190" height="16" rx="4" fill="#eef1f5"/>`,
      `<rect x="${x + 300}" y="${line - 8}" width="${length}" height="16" rx="4" fill="${accent}"/>`,
      text(x + 500, line + 5, percent(probability), { size: 13, fill: faint }),
    );
    line += 30;
  }
  return parts;
}

function heatMapCard(x, y, w, h, { file, similarity, heatMap }) {
  const side = 190;
  const top = y + 60;
  const [patchWidth, patchHeight] = [side / similarity.columns, side / similarity.rows];
  const mark = (left) =>
    `<rect x="${left + similarity.column * patchWidth}" y="${top + similarity.row * patchHeight}" width="${patchWidth}" ` +
    `height="${patchHeight}" fill="none" stroke="#111111" stroke-width="2.5"/>`;
  const second = x + 24 + side + 28;
  return [
    card(x, y, w, h),
    text(x + 24, y + 38, 'Which patches resemble the marked one?', { size: 18, weight: 700 }),
    image(x + 24, top, side, readFileSync(file)),
    mark(x + 24),
    image(second, top, side, heatMap),
    mark(second),
  ];
}

/**
 * Draws the sheet.
 * @param {object} found
 * @param {string} found.title
 * @param {string} found.subtitle
 * @param {{ query: object, best: { file: string, probability: number }[] }[]} found.searches
 * @param {{ file: string, labels: { label: string, probability: number }[] }} found.classification
 * @param {{ file: string, similarity: object, heatMap: Buffer }} found.comparison
 * @returns {Promise<Buffer>} PNG
 */
export async function drawContactSheet({ title, subtitle, searches, classification, comparison }) {
  const parts = [text(margin, 58, title, { size: 30, weight: 700 }), text(margin, 88, subtitle, { fill: faint })];
  let y = 112;
  for (const search of searches) {
    parts.push(...(await queryRow(y, search)));
    y += rowHeight;
  }
  y += 12;
  const cardHeight = 280;
  const cardWidth = (width - 2 * margin - 24) / 2;
  parts.push(
    ...classificationCard(margin, y, cardWidth, cardHeight, classification),
    ...heatMapCard(margin + cardWidth + 24, y, cardWidth, cardHeight, comparison),
  );
  const height = y + cardHeight + margin;
  // Without any font, letters would be boxes.
  const shown = (await canDraw('abc')) ? parts : parts.filter((part) => !part.startsWith('<text'));
  const svg =
    `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}">` +
    `<rect width="${width}" height="${height}" fill="#f5f7fa"/>${shown.join('')}</svg>`;
  return sharp(Buffer.from(svg)).png({ palette: true, colours: 256, compressionLevel: 9 }).toBuffer();
}
