/** Bytes that compress to about a half, and are the same each time. */
export function textBytes(size: number, seed = 1): Buffer {
  const bytes = Buffer.allocUnsafe(size);
  let state = seed;
  for (let at = 0; at < size; at++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    bytes[at] = 97 + ((state >>> 24) & 15);
  }
  return bytes;
}
