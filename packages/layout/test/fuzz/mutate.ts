/** Numbers that look random and are the same for the same seed, below 2^32 (mulberry32). */
export function randomNumbers(seed: number): (below: number) => number {
  let state = seed >>> 0;
  return (below) => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) % Math.max(1, below);
  };
}

/** Bytes at which decoders tend to stumble: ends of ranges, flags of varints, marks of journal records, JSON. */
const TELLING = [0, 1, 2, 0x7f, 0x80, 0xff, 0x4c, 0x43, 0x52, 0x22, 0x2c, 0x5b, 0x7b, 0x5c, 0x2d, 0x39];

/** A copy with one to four changes: bits, bytes, and stretches that are repeated, moved, left out or cut off. */
export function mutate(bytes: Uint8Array, random: (below: number) => number): Buffer {
  let result = Buffer.from(bytes);
  for (let changes = 1 + random(4); changes > 0; changes--) {
    const at = random(result.length);
    const length = 1 + random(Math.min(64, result.length));
    const stretch = Buffer.from(result.subarray(at, at + length));
    const to = random(result.length + 1);
    switch (random(7)) {
      case 0:
        result[at] = (result[at] ?? 0) ^ (1 << random(8));
        break;
      case 1:
        result[at] = TELLING[random(TELLING.length)] ?? 0;
        break;
      case 2:
        result.fill(TELLING[random(TELLING.length)] ?? 0, at, Math.min(result.length, at + length));
        break;
      case 3:
        result = Buffer.concat([result.subarray(0, to), stretch, result.subarray(to)]);
        break;
      case 4:
        result = Buffer.concat([result.subarray(0, at), result.subarray(at + length)]);
        break;
      case 5:
        stretch.copy(result, to);
        break;
      default:
        if (random(4) === 0) result = result.subarray(0, at);
    }
  }
  return result;
}
