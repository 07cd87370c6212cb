/** Learning-rate schedules: a factor for every step, which scales the learning rate and decoupled weight decay. */
import { requireInteger, requireNumber, requireOneOf, requireOptions, wrongRange, wrongType } from '../arguments.js';

/** Linear warm-up to 1, then 1. */
export interface ConstantSchedule {
  readonly name: 'constant';
  /** Default 0. */
  readonly warmupSteps?: number;
  /** Without effect: a schedule can become another by its name alone. */
  readonly totalSteps?: number;
}

/** Linear warm-up to 1, then half a cosine down to 0. */
export interface CosineSchedule {
  readonly name: 'cosine';
  /** Default 0. */
  readonly warmupSteps?: number;
  /** The step at which the factor reaches 0; more than `warmupSteps`. */
  readonly totalSteps: number;
}

/**
 * The end of a cosine schedule, run slower: SigLIP 2's NaFlex models continue a training from 90 % of its steps, with
 * the rest stretched 3.75 times (arXiv 2502.14786, section 2.4.2).
 */
export interface StretchedSchedule {
  readonly name: 'stretched';
  /** The cosine schedule of the whole original training. */
  readonly base: { readonly warmupSteps?: number; readonly totalSteps: number };
  /** Where step 0 is in the base schedule, as a share of its steps, from 0 up to but not including 1; default 0.9. */
  readonly from?: number;
  /** Steps taken for every step of the base schedule; default 3.75. */
  readonly stretch?: number;
}

/** A schedule, or a function from the number of steps already taken to a finite factor of at least 0. */
export type Schedule = ConstantSchedule | CosineSchedule | StretchedSchedule | ((step: number) => number);

function checkCosine(argument: string, warmupSteps: unknown, totalSteps: unknown): void {
  const warmup = requireInteger(`${argument}.warmupSteps`, warmupSteps ?? 0, 0);
  const total = requireInteger(`${argument}.totalSteps`, totalSteps, 1);
  if (total <= warmup)
    throw wrongRange(`${argument}.totalSteps`, `an integer above warmupSteps, which is ${warmup}`, total);
}

/**
 * Checks a schedule that a user gave.
 * @param argument its name in error messages
 * @throws TypeError, RangeError that name the option
 */
export function checkSchedule(argument: string, schedule: unknown): Schedule {
  if (typeof schedule === 'function') return schedule as Schedule;
  if (typeof schedule !== 'object' || schedule === null)
    throw wrongType(argument, 'an options object or a function', schedule);
  const given = schedule as Record<string, unknown>;
  const name = requireOneOf(`${argument}.name`, given.name, ['constant', 'cosine', 'stretched']);
  if (name === 'constant') {
    requireOptions(argument, given, ['name', 'warmupSteps', 'totalSteps']);
    requireInteger(`${argument}.warmupSteps`, given.warmupSteps ?? 0, 0);
  } else if (name === 'cosine') {
    requireOptions(argument, given, ['name', 'warmupSteps', 'totalSteps']);
    checkCosine(argument, given.warmupSteps, given.totalSteps);
  } else {
    requireOptions(argument, given, ['name', 'base', 'from', 'stretch']);
    if (given.base === undefined) throw wrongType(`${argument}.base`, 'an options object', given.base);
    const base = requireOptions(`${argument}.base`, given.base as object, ['warmupSteps', 'totalSteps']);
    const { warmupSteps, totalSteps } = base as Record<string, unknown>;
    checkCosine(`${argument}.base`, warmupSteps, totalSteps);
    requireNumber(`${argument}.from`, given.from ?? 0.9, 'a number from 0 to below 1', (from) => from >= 0 && from < 1);
    requireNumber(`${argument}.stretch`, given.stretch ?? 3.75, 'a positive number', (stretch) => stretch > 0);
  }
  return schedule as Schedule;
}

function warmup(warmupSteps: number, step: number): number {
  return step < warmupSteps ? step / warmupSteps : 1;
}

/** min(1, t/W) · ½(1 + cos(π · clip((t − W)/(T − W), 0, 1))), as big_vision's utils.py has it. */
function cosine(warmupSteps: number, totalSteps: number, step: number): number {
  const progress = Math.min(Math.max((step - warmupSteps) / (totalSteps - warmupSteps), 0), 1);
  return warmup(warmupSteps, step) * 0.5 * (1 + Math.cos(Math.PI * progress));
}

/**
 * The factor of a step.
 * @param schedule as {@link checkSchedule} returned it
 * @param step steps taken before this one: with a warm-up, the first step's factor is 0, as in big_vision
 * @returns from 0 to 1; what a function returns may be larger
 * @throws TypeError, RangeError when a function returns anything but a finite number of at least 0
 */
export function scheduleFactor(schedule: Schedule, step: number): number {
  if (typeof schedule === 'function') {
    const expected = 'a finite number of at least 0';
    return requireNumber(`options.schedule(${step})`, schedule(step), expected, (factor) => factor >= 0);
  }
  if (schedule.name === 'constant') return warmup(schedule.warmupSteps ?? 0, step);
  if (schedule.name === 'cosine') return cosine(schedule.warmupSteps ?? 0, schedule.totalSteps, step);
  const { base, from = 0.9, stretch = 3.75 } = schedule;
  return cosine(base.warmupSteps ?? 0, base.totalSteps, from * base.totalSteps + step / stretch);
}
