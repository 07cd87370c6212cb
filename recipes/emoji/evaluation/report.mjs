// The results as Markdown: one table of languages, one line for what they are compared with, one for the keywords.
import { mean, meanOfEach, recallRanks } from './ranking.mjs';

const names = new Intl.DisplayNames('en', { type: 'language' });

/**
 * @param {object} results of evaluate.mjs
 * @param {{ seen: string[], unseen: string[] }} texts
 * @returns {string}
 */
export function renderReport(results, { seen, unseen }) {
  const { models, neighbour, style, pictures } = results;
  const over = (languages, model, direction) =>
    meanOfEach(languages.map((language) => model.languages[language][direction]));
  const cells = (direction, languages) => models.map((model) => over(languages, model, direction));
  const row = (title, toImage, toText) => `| ${title} | ${shown(toImage)} | ${shown(toText)} |`;
  const languageRow = (title, languages) =>
    row(title, cells('textToImage', languages), cells('imageToText', languages));
  const keywords = (field) =>
    models.map((model) => meanOfEach(seen.map((language) => model.keywords[language][field])));
  const asked = Math.round(mean(seen.map((language) => models[0].keywords[language].texts)));
  return [
    `${pictures} pictures of the style ${style}; recall at ${recallRanks.join(', ')}${models.length > 1 ? `; of ${models.length} models, smallest to largest` : ''}.`,
    '',
    '| | text → image | image → text |',
    '|---|---|---|',
    languageRow('**mean of the trained languages**', seen),
    row(
      `nearest neighbour on pixels, told all names (${neighbour.trained.join(', ')})`,
      [neighbour.textToImage],
      [neighbour.imageToText],
    ),
    row('chance', [results.chance], [results.chance]),
    `| keywords never trained in their language, about ${asked} in each (chance ${numbers(keywords('chance')[0])}) | ${shown(keywords('textToImage'))} | |`,
    languageRow('mean of the languages never trained', unseen),
    '',
    '| language | text → image | image → text |',
    '|---|---|---|',
    ...seen.map((language) => languageRow(names.of(language), [language])),
    ...unseen.map((language) => languageRow(`${names.of(language)} (never trained)`, [language])),
    '',
  ].join('\n');
}

/** Recalls of several models: one number where they agree, else from the smallest to the largest. */
function shown(all) {
  return recallRanks
    .map((_, place) => {
      const found = [...new Set(all.map((recall) => number(recall[place])))].sort();
      return found.length > 1 ? `${found[0]}–${found[found.length - 1]}` : found[0];
    })
    .join(' / ');
}

function numbers(recall) {
  return recall.map(number).join(' / ');
}

function number(value) {
  return value.toFixed(3).replace(/^0/, '');
}
