/** Timing with warm-up and as many repeats as the noise asks for. */
import { setTimeout as sleep } from 'node:timers/promises';
import { median, spread } from './statistics.mjs';

/**
 * How long to measure: rounds, of which `hurried` are enough when the time is up; `spread`, the width of the middle 60 %
 * that counts as steady; how long a contestant's turn is, how many calls it has at least, and the pause before it.
 */
export const thorough = {
  rounds: { hurried: 3, least: 5, most: 25 },
  seconds: 90,
  spread: 0.03,
  roundMilliseconds: 250,
  pause: 50,
};
export const quick = {
  rounds: { hurried: 2, least: 2, most: 2 },
  seconds: 1,
  spread: 1,
  roundMilliseconds: 1,
  pause: 0,
};

/**
 * Times several contestants against each other. Each round gives every contestant a turn, in an order that rotates, so
 * that a change of the machine's load or clock meets all of them; rounds go on until every contestant is steady, or the
 * time is up.
 * @param contestants objects with `name` and `time(repeats)`, which resolves to the `milliseconds` of each repeat and the
 *   `cpuMilliseconds` of all
 * @param plan `thorough`, `quick` or one like them
 * @returns by contestant's name, one number a round: `samples`, milliseconds of one repeat (the median of the round's), and
 *   `cpu`, milliseconds of work of all threads for one repeat; `calls`, milliseconds of every repeat of all rounds; and the
 *   number of `rounds`
 */
export async function interleave(contestants, plan) {
  const repeats = new Map();
  for (const contestant of contestants) {
    let [once] = (await contestant.time(1)).milliseconds;
    // A short first call says more about caches and compilation than about the work.
    if (once < plan.roundMilliseconds) [once] = (await contestant.time(1)).milliseconds;
    const fitting = Math.round(plan.roundMilliseconds / once);
    // Slow calls are not repeated within a turn: rounds would be few.
    const least = once < 4 * plan.roundMilliseconds ? (plan.calls ?? 1) : 1;
    repeats.set(contestant.name, Math.max(least, Math.min(1000, fitting)));
  }
  const samples = new Map(contestants.map(({ name }) => [name, []]));
  const cpu = new Map(contestants.map(({ name }) => [name, []]));
  const calls = new Map(contestants.map(({ name }) => [name, []]));
  const end = performance.now() + plan.seconds * 1000;
  let rounds = 0;
  const wanted = () => {
    const { hurried, least, most } = plan.rounds;
    if (rounds >= most) return false;
    if (performance.now() >= end) return rounds < hurried;
    return rounds < least || !steady(samples, plan);
  };
  while (wanted()) {
    for (let turn = 0; turn < contestants.length; turn++) {
      const contestant = contestants[(rounds + turn) % contestants.length];
      // Thread pools of the one before may still be spinning.
      if (plan.pause > 0) await sleep(plan.pause);
      const count = repeats.get(contestant.name);
      const { milliseconds, cpuMilliseconds } = await contestant.time(count);
      samples.get(contestant.name).push(median(milliseconds));
      cpu.get(contestant.name).push(cpuMilliseconds / count);
      calls.get(contestant.name).push(...milliseconds);
    }
    rounds++;
  }
  return { samples, cpu, calls, rounds };
}

function steady(samples, plan) {
  return [...samples.values()].every((times) => spread(times) <= plan.spread);
}

/** A hundred calls where they take no longer than a round may: enough for the percentiles of single calls. */
export const ofSingleCalls = (plan) => ({ ...plan, rounds: { ...plan.rounds, least: plan.rounds.most }, calls: 4 });

/** The ratios of two contestants' times within each round: what both suffered in a round cancels. */
export function pairedRatios(numerator, denominator) {
  return numerator.map((time, round) => time / denominator[round]);
}

/** A contestant that is a function of this process. */
export function localContestant(name, run) {
  return {
    name,
    async time(repeats) {
      const milliseconds = [];
      const before = process.cpuUsage();
      for (let i = 0; i < repeats; i++) {
        const start = performance.now();
        await run();
        milliseconds.push(performance.now() - start);
      }
      const { user, system } = process.cpuUsage(before);
      return { milliseconds, cpuMilliseconds: (user + system) / 1000 };
    },
  };
}
