// Ranks and recalls, with several right answers to a question, and ties that count against the model.

/**
 * The rank of the best right answer: how many wrong ones score at least as high.
 *
 * @param {number} count of candidates
 * @param {(candidate: number) => number} score
 * @param {ReadonlySet<number>} right candidates; not empty
 * @returns {number} from 0 for a right answer above all wrong ones
 */
export function rankOf(count, score, right) {
  let best = Number.NEGATIVE_INFINITY;
  for (const candidate of right) best = Math.max(best, score(candidate));
  // A score that is no number beats nothing.
  if (Number.isNaN(best)) return count - right.size;
  let rank = 0;
  for (let candidate = 0; candidate < count; candidate++)
    if (!right.has(candidate) && !(score(candidate) < best)) rank++;
  return rank;
}

/** Ranks at which recall is reported. */
export const recallRanks = [1, 5, 10];

/**
 * Recall at each of {@link recallRanks}: the share of ranks below it.
 *
 * @param {readonly number[]} ranks from {@link rankOf}
 * @returns {number[]} from 0 to 1; NaN for no ranks
 */
export function recalls(ranks) {
  return recallRanks.map((most) => ranks.filter((rank) => rank < most).length / ranks.length);
}

/**
 * What guessing gives: the chance that one of `right` candidates is among the first k of `count` in random order, as a
 * mean over questions.
 *
 * @param {number} count of candidates
 * @param {readonly number[]} right how many are right, for each question
 * @returns {number[]} for each of {@link recallRanks}
 */
export function chance(count, right) {
  return recallRanks.map((most) => {
    const shares = right.map((size) => {
      let missed = 1;
      for (let i = 0; i < Math.min(most, count); i++) missed *= Math.max(0, count - size - i) / (count - i);
      return 1 - missed;
    });
    return mean(shares);
  });
}

/** The mean of numbers; NaN for none. */
export function mean(values) {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

/** Means of lists, place by place. */
export function meanOfEach(lists) {
  return lists[0].map((_, place) => mean(lists.map((list) => list[place])));
}
