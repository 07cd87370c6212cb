/** Seeded random numbers: the same inputs and weights on every machine. */

/** Uniform 32-bit integers (xoshiro128**, seeded through splitmix32). */
export function generator(seed) {
  let state = seed >>> 0;
  const splitmix = () => {
    state = (state + 0x9e3779b9) >>> 0;
    let z = state;
    z = Math.imul(z ^ (z >>> 16), 0x85ebca6b);
    z = Math.imul(z ^ (z >>> 13), 0xc2b2ae35);
    return (z ^ (z >>> 16)) | 0;
  };
  let [a, b, c, d] = [splitmix(), splitmix(), splitmix(), splitmix()];
  return () => {
    const scaled = Math.imul(b, 5);
    const result = Math.imul((scaled << 7) | (scaled >>> 25), 9) >>> 0;
    const shifted = b << 9;
    c ^= a;
    d ^= b;
    b ^= c;
    a ^= d;
    c ^= shifted;
    d = (d << 11) | (d >>> 21);
    return result;
  };
}

/** Fills with normally distributed values (Box and Muller's transform). */
export function fillNormal(values, next, mean, deviation) {
  for (let i = 0; i < values.length; i += 2) {
    const radius = deviation * Math.sqrt(-2 * Math.log((next() + 1) / 4294967297));
    const angle = next() * (Math.PI / 2147483648);
    values[i] = mean + radius * Math.cos(angle);
    if (i + 1 < values.length) values[i + 1] = mean + radius * Math.sin(angle);
  }
  return values;
}

export function normal(length, seed, mean = 0, deviation = 1) {
  return fillNormal(new Float32Array(length), generator(seed), mean, deviation);
}

/** Integers from 0 to `limit`, exclusive. */
export function integers(length, seed, limit) {
  const next = generator(seed);
  return Int32Array.from({ length }, () => next() % limit);
}

/** Pictures as a camera gives them to a resampler: smooth structure and a little noise, 8 bits a channel. */
export function picture(width, height, channels, seed) {
  const next = generator(seed);
  const data = new Uint8Array(width * height * channels);
  const [fx, fy] = [3 + (next() % 7), 2 + (next() % 5)];
  for (let y = 0, i = 0; y < height; y++)
    for (let x = 0; x < width; x++)
      for (let c = 0; c < channels; c++, i++)
        data[i] = 128 + 90 * Math.sin((fx * x) / width + (fy * y) / height + c) + (next() % 33) - 16;
  return { data, width, height, channels };
}
