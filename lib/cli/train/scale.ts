/** From numbers to places on an axis, and which of them to label. */

/** An axis from `least` to `most`. */
export interface Scale {
  /** The place of a value, from 0 at the least to 1 at the most. */
  place(value: number): number;
  ticks: number[];
  /** A tick as text: with as many digits as tell it from its neighbours. */
  label(tick: number): string;
}

/** 1, 2 or 5 times a power of ten, about `span / count`. */
function niceStep(span: number, count: number): number {
  const rough = span / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const factor = rough / power;
  return power * (factor < 1.5 ? 1 : factor < 3.5 ? 2 : factor < 7.5 ? 5 : 10);
}

function multiples(least: number, most: number, step: number): number[] {
  const first = Math.ceil(least / step - 1e-9);
  const last = Math.floor(most / step + 1e-9);
  return Array.from({ length: Math.max(0, last - first + 1) }, (_, i) => Number(((first + i) * step).toPrecision(12)));
}

/** An axis whose ends are round numbers around the values. */
export function linearScale(least: number, most: number, count: number): Scale {
  const pad = least === most ? Math.max(Math.abs(least) * 0.1, 1e-12) : 0;
  const step = niceStep(most - least + 2 * pad, count);
  const low = Math.floor((least - pad) / step + 1e-9) * step;
  const high = Math.ceil((most + pad) / step - 1e-9) * step;
  const decimals = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
  const plain = decimals <= 4 && Math.max(Math.abs(low), Math.abs(high)) < 1e4;
  return {
    place: (value) => (value - low) / (high - low),
    ticks: multiples(low, high, step),
    label: (tick) => (plain ? tick.toFixed(decimals) : shortNumber(tick)),
  };
}

/** An axis on which equal factors are equally far apart; for positive values. */
export function logScale(least: number, most: number): Scale {
  const low = Math.log10(least);
  const high = Math.log10(most);
  const pad = 0.03 * (high - low);
  const decades = high - low;
  const factors = decades > 3 ? [1] : decades > 1.2 ? [1, 3] : [1, 2, 5];
  const skip = Math.max(1, Math.ceil(decades / 6));
  const ticks: number[] = [];
  for (let power = Math.floor(low); power <= Math.ceil(high); power++)
    for (const factor of factors) {
      const tick = Number((factor * 10 ** power).toPrecision(12));
      if (power % skip === 0 && tick >= 10 ** (low - pad) && tick <= 10 ** (high + pad)) ticks.push(tick);
    }
  return { place: (value) => (Math.log10(value) - low + pad) / (decades + 2 * pad), ticks, label: shortNumber };
}

/** An axis of steps, which ends where they end. */
export function stepScale(first: number, last: number, count: number): Scale {
  const span = Math.max(1, last - first);
  const step = Math.max(1, niceStep(span, count));
  return { place: (value) => (value - first) / span, ticks: multiples(first, last, step), label: shortNumber };
}

/** A number in few characters: `0.0012`, `12`, `34.5k`, `2e-7`. */
export function shortNumber(value: number): string {
  const size = Math.abs(value);
  const rounded = (number: number): number => Number(number.toPrecision(4));
  if (size === 0) return '0';
  if (size >= 1e12 || size < 1e-3) return Number(value.toPrecision(3)).toExponential().replace('e+', 'e');
  if (size >= 1e9) return `${rounded(value / 1e9)}G`;
  if (size >= 1e6) return `${rounded(value / 1e6)}M`;
  if (size >= 1e4) return `${rounded(value / 1e3)}k`;
  return String(rounded(value));
}
