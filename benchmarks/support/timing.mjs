/** Timing with warm-up and as many repeats as the noise asks for. */
import { setTimeout as sleep } from 'node:timers/promises';
import { spread, summarize } from './statistics.mjs';

/** How long to measure. `spread` is the width of the middle 60 % that counts as steady. */
export const thorough = { rounds: { least: 5, most: 25 }, seconds: 90, spread: 0.03, roundMilliseconds: 250, pause: 50 };
export const quick = { rounds: { least: 2, most: 2 }, seconds: 1, spread: 1, roundMilliseconds: 1, pause: 0 };

/**
 * Times several contestants against each other. Each round gives every contestant a turn, in an order that rotates, so
 * that a change of the machine's load or clock meets all of them; rounds go on until every contestant is steady, or the
 * time is up.
 * @param contestants objects with `name` and `time(repeats)`, which resolves to the milliseconds of each repeat
 * @param plan `thorough`, `quick` or one like them
 * @returns milliseconds of one repeat by name: one sample a round, the median of the round's repeats; and `rounds`
 */
export async function interleave(contestants, plan) {
  const repeats = new Map();
  for (const contestant of contestants) {
    await contestant.time(1);
    const [once] = await contestant.time(1);
    repeats.set(contestant.name, Math.max(1, Math.min(1000, Math.round(plan.roundMilliseconds / once))));
  }
  const samples = new Map(contestants.map(({ name }) => [name, []]));
  const end = performance.now() + plan.seconds * 1000;
  let rounds = 0;
  while (rounds < plan.rounds.least || (rounds < plan.rounds.most && performance.now() < end && !steady(samples, plan))) {
    for (let turn = 0; turn < contestants.length; turn++) {
      const contestant = contestants[(rounds + turn) % contestants.length];
      // Thread pools of the one before may still be spinning.
      if (plan.pause > 0) await sleep(plan.pause);
      const times = await contestant.time(repeats.get(contestant.name));
      samples.get(contestant.name).push(summarize(times).median);
    }
    rounds++;
  }
  return { samples, rounds };
}

function steady(samples, plan) {
  return [...samples.values()].every((times) => spread(times) <= plan.spread);
}

/** The ratios of two contestants' times within each round: what both suffered in a round cancels. */
export function pairedRatios(numerator, denominator) {
  return numerator.map((time, round) => time / denominator[round]);
}

/** A contestant that is a function of this process. */
export function localContestant(name, run) {
  return {
    name,
    async time(repeats) {
      const times = [];
      for (let i = 0; i < repeats; i++) {
        const start = performance.now();
        await run();
        times.push(performance.now() - start);
      }
      return times;
    },
  };
}
