/** Zero-shot classification: from labels to the texts that a picture is compared with. */
import { requireString, wrongRange } from '../arguments.js';
import { type Embeddings, joinEmbeddings } from './embeddings.js';

const defaultTemplate = 'This is a photo of {}.';

/**
 * The templates to use.
 * @throws TypeError or RangeError for one that is no text with `{}` in it
 */
export function checkTemplates(template: unknown): string[] {
  const templates = template === undefined ? [defaultTemplate] : Array.isArray(template) ? template : [template];
  if (templates.length === 0) throw wrongRange('options.template', 'at least one template', 'none');
  for (const entry of templates) {
    requireString('options.template', entry);
    if (!(entry as string).includes('{}')) throw wrongRange('options.template', 'a text with {} for the label', entry);
  }
  return templates as string[];
}

/** Every label in every template: all texts of the first label, then those of the second, … */
export function labelTexts(labels: readonly string[], templates: readonly string[]): string[] {
  return labels.flatMap((label) => templates.map((template) => template.replaceAll('{}', () => label)));
}

/** The mean of each group of `size` consecutive rows. */
export function averageGroups(embeddings: Embeddings, size: number): Embeddings {
  if (size === 1) return embeddings;
  const [rows, dim] = embeddings.shape;
  const means = new Float32Array((rows / size) * dim);
  embeddings.data.forEach((value, i) => {
    const group = Math.floor(i / (dim * size));
    means[group * dim + (i % dim)] = (means[group * dim + (i % dim)] as number) + value / size;
  });
  return joinEmbeddings([means], dim);
}
