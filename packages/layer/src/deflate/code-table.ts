/** Bits of input that one table look-up sees. 10 measured best over 9 to 13: see docs/benchmarks.md. */
export const LOOKUP_BITS = 10;
const SIZE = 1 << LOOKUP_BITS;

/** Longest code of deflate (RFC 1951 section 3.2.7). */
const MAX_CODE = 15;

/*
 * A table entry says how far one look-up gets, and sums of entries say how far several get:
 *
 *   bits  0-5   bits of input consumed
 *   bits  6-16  bytes of output stood for
 *   bit  17     what comes next is a distance code
 *   bits 18-22  bits of input the entry depends on (the extra bits of a distance are merely skipped)
 *   bit  31     special: not an advance, but a case for the slow path
 */
export const OUTPUT_SHIFT = 6;
export const OUTPUT_MASK = 0x7ff;
export const STATE_SHIFT = 17;
const NEEDS_SHIFT = 18;
const NEEDS_MASK = 0x1f;
export const BITS_MASK = 0x3f;
const AWAITS_DISTANCE = 1 << STATE_SHIFT;

const SPECIAL = 0x8000_0000 | 0;
/** What a special entry means. */
export const Special = {
  /** No code starts like this. */
  invalid: SPECIAL,
  /** End of block; bits 0-5 are the length of its code. */
  endOfBlock: SPECIAL | (1 << 24),
  /** A code, or a length with its extra bits, that is longer than a look-up sees. */
  long: SPECIAL | (2 << 24),
} as const;
export const SPECIAL_MASK = 0xff00_0000 | 0;

const LENGTH_BASE = [
  3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 15, 17, 19, 23, 27, 31, 35, 43, 51, 59, 67, 83, 99, 115, 131, 163, 195,
  227, 258,
];
const LENGTH_EXTRA = [0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0];
const LENGTH_CODES = LENGTH_BASE.length;
const DISTANCE_CODES = 30;
/** Literals and lengths that the fixed code of RFC 1951 section 3.2.6 has room for. */
const SYMBOLS = 288;

function distanceExtra(symbol: number): number {
  return symbol < 2 ? 0 : (symbol >> 1) - 1;
}

/** The counter's value, which it then exceeds by one. */
function takeCount(counters: Uint16Array, index: number): number {
  const value = counters[index] ?? 0;
  counters[index] = value + 1;
  return value;
}

/** One canonical Huffman code, as far as a decoder that goes bit by bit needs it. */
class CanonicalCode {
  /** Symbols by length of code, then by value. */
  readonly symbols = new Uint16Array(SYMBOLS);
  readonly counts = new Uint16Array(MAX_CODE + 1);
  /** Code of each symbol, first bit of the stream lowest. */
  readonly reversed = new Uint16Array(SYMBOLS);
  /** Unused code space in units of the longest code; negative when over-subscribed. */
  left = 0;
  readonly #starts = new Uint16Array(MAX_CODE + 2);
  readonly #next = new Uint16Array(MAX_CODE + 2);

  set(lengths: Uint8Array, from: number, count: number): void {
    const { counts, symbols, reversed } = this;
    const starts = this.#starts;
    const next = this.#next;
    counts.fill(0);
    for (let symbol = 0; symbol < count; symbol++) takeCount(counts, lengths[from + symbol] ?? 0);
    counts[0] = 0;
    let left = 1;
    let code = 0;
    let start = 0;
    for (let length = 1; length <= MAX_CODE; length++) {
      const n = counts[length] ?? 0;
      left = left * 2 - n;
      next[length] = code;
      starts[length] = start;
      start += n;
      code = (code + n) << 1;
      if (left < 0) break;
    }
    this.left = left;
    if (left < 0) return;
    for (let symbol = 0; symbol < count; symbol++) {
      const length = lengths[from + symbol] ?? 0;
      if (length === 0) continue;
      symbols[takeCount(starts, length)] = symbol;
      reversed[symbol] = (REVERSED[takeCount(next, length)] ?? 0) >>> (16 - length);
    }
  }

  /**
   * zlib's rule, which is what decides whether a layer can be unpacked: a code must be complete, unless it is
   * one code of one bit, or none at all.
   */
  get usable(): boolean {
    if (this.left === 0) return true;
    if (this.left < 0) return false;
    return this.counts.every((n, length) => n === 0 || (length === 1 && n === 1));
  }

  /** The symbol whose code `bits` starts with, times 16, plus the code's length; -1 when there is none. */
  decode(bits: number): number {
    let code = 0;
    let first = 0;
    let index = 0;
    for (let length = 1; length <= MAX_CODE; length++) {
      code |= (bits >>> (length - 1)) & 1;
      const n = this.counts[length] ?? 0;
      if (code - first < n) return (this.symbols[index + code - first] ?? 0) * 16 + length;
      index += n;
      first = (first + n) << 1;
      code <<= 1;
    }
    return -1;
  }
}

const REVERSED = Uint16Array.from({ length: 65536 }, (_, code) => {
  let reversed = 0;
  for (let bit = 0; bit < 16; bit++) reversed |= ((code >>> bit) & 1) << (15 - bit);
  return reversed;
});

/**
 * The literal/length and distance codes of a block as one automaton. The first half of `entries` is for where
 * a literal or length is due, the second for where a distance is. An entry is the sum of as many symbols as
 * its bits determine: nothing here wants to know what the output is, only how long.
 */
export class CodeTable {
  readonly entries = new Int32Array(2 * SIZE);
  readonly #literals = new CanonicalCode();
  readonly #distances = new CanonicalCode();
  /** Symbols by the bits that determine them: a code, with a length's extra bits. */
  readonly #byBits = new Uint16Array((LOOKUP_BITS + 1) * SYMBOLS);
  readonly #byBitsCount = new Uint16Array(LOOKUP_BITS + 1);

  /** Builds the table from code lengths; returns what is wrong with them, if anything is. */
  set(lengths: Uint8Array, literalCount: number, distanceCount: number): string | undefined {
    this.#literals.set(lengths, 0, literalCount);
    if (!this.#literals.usable) return 'its literal/length code is not a complete prefix code';
    this.#distances.set(lengths, literalCount, distanceCount);
    if (!this.#distances.usable) return 'its distance code is not a complete prefix code';
    if (lengths[256] === 0) return 'its code has no end of block';
    this.#fill(this.#literals, lengths, 0, literalCount, this.entries.subarray(0, SIZE), literalEntry);
    this.#fill(
      this.#distances,
      lengths,
      literalCount,
      distanceCount,
      this.entries.subarray(SIZE),
      distanceEntry,
    );
    this.#combine();
    return undefined;
  }

  /**
   * What a `long` entry stands for, as an advance; `Special.invalid` when nothing does.
   *
   * @param bits at least 20 bits of the stream
   */
  resolveLiteral(bits: number): number {
    const found = this.#literals.decode(bits);
    if (found < 0) return Special.invalid;
    const length = found & 15;
    const symbol = found >>> 4;
    if (symbol < 256) return length | (1 << OUTPUT_SHIFT);
    if (symbol === 256) return Special.endOfBlock | length;
    if (symbol - 257 >= LENGTH_CODES) return Special.invalid;
    const extra = LENGTH_EXTRA[symbol - 257] ?? 0;
    const output = (LENGTH_BASE[symbol - 257] ?? 0) + ((bits >>> length) & ((1 << extra) - 1));
    return (length + extra) | (output << OUTPUT_SHIFT) | AWAITS_DISTANCE;
  }

  resolveDistance(bits: number): number {
    const found = this.#distances.decode(bits);
    if (found < 0 || found >>> 4 >= DISTANCE_CODES) return Special.invalid;
    return (found & 15) + distanceExtra(found >>> 4);
  }

  /** Fills a table by doubling: what has n bits is placed when the table is 2^n long, then copied along. */
  #fill(
    code: CanonicalCode,
    lengths: Uint8Array,
    from: number,
    count: number,
    table: Int32Array,
    entryOf: (symbol: number, length: number) => number,
  ): void {
    const byBits = this.#byBits;
    const byBitsCount = this.#byBitsCount;
    byBitsCount.fill(0);
    const isLiteral = from === 0;
    let hasLong = false;
    for (let symbol = 0; symbol < count; symbol++) {
      const length = lengths[from + symbol] ?? 0;
      if (length === 0) continue;
      const bits =
        length + (isLiteral && symbol > 264 && symbol < 285 ? (LENGTH_EXTRA[symbol - 257] ?? 0) : 0);
      if (bits > LOOKUP_BITS) hasLong = true;
      else byBits[bits * SYMBOLS + takeCount(byBitsCount, bits)] = symbol;
    }
    table[0] = Special.invalid;
    for (let bits = 1; bits <= LOOKUP_BITS; bits++) {
      const size = 1 << (bits - 1);
      table.copyWithin(size, 0, size);
      const n = byBitsCount[bits] ?? 0;
      for (let at = 0; at < n; at++) {
        const symbol = byBits[bits * SYMBOLS + at] ?? 0;
        const length = lengths[from + symbol] ?? 0;
        const reversed = code.reversed[symbol] ?? 0;
        let entry = entryOf(symbol, length);
        if (bits === length || entry < 0) table[reversed] = entry;
        else {
          // A length's extra bits follow its code: one entry for each value of them.
          entry += (bits - length) * (1 + (1 << NEEDS_SHIFT));
          for (let extra = 0; extra < 1 << (bits - length); extra++) {
            table[reversed | (extra << length)] = entry + (extra << OUTPUT_SHIFT);
          }
        }
      }
    }
    if (!hasLong) return;
    for (let symbol = 0; symbol < count; symbol++) {
      const length = lengths[from + symbol] ?? 0;
      if (length === 0) continue;
      const bits =
        length + (isLiteral && symbol > 264 && symbol < 285 ? (LENGTH_EXTRA[symbol - 257] ?? 0) : 0);
      if (bits <= LOOKUP_BITS) continue;
      const step = 1 << Math.min(length, LOOKUP_BITS);
      for (let index = (code.reversed[symbol] ?? 0) & (SIZE - 1); index < SIZE; index += step)
        table[index] = Special.long;
    }
  }

  /** Adds to each entry the symbols after it that its bits determine too. */
  #combine(): void {
    const entries = this.entries;
    // Downwards: an entry reads only lower ones of its own half, which still stand for one symbol, and the
    // distances, which are left alone.
    for (let index = SIZE - 1; index >= 0; index--) {
      let sum = entries[index] ?? 0;
      if (sum < 0) continue;
      for (;;) {
        const needs = (sum >>> NEEDS_SHIFT) & NEEDS_MASK;
        const half = (sum >>> STATE_SHIFT) & 1;
        const next = entries[(half << LOOKUP_BITS) + (index >>> needs)] ?? 0;
        if (next < 0 || needs + ((next >>> NEEDS_SHIFT) & NEEDS_MASK) > LOOKUP_BITS) break;
        sum += next;
        if (half === 1) {
          sum -= AWAITS_DISTANCE;
          if (((sum >>> NEEDS_SHIFT) & NEEDS_MASK) !== (sum & BITS_MASK)) break;
        }
      }
      entries[index] = sum;
    }
  }
}

function literalEntry(symbol: number, length: number): number {
  if (symbol < 256) return length | (1 << OUTPUT_SHIFT) | (length << NEEDS_SHIFT);
  if (symbol === 256) return Special.endOfBlock | length;
  const output = LENGTH_BASE[symbol - 257];
  if (output === undefined) return Special.invalid;
  return length | (output << OUTPUT_SHIFT) | AWAITS_DISTANCE | (length << NEEDS_SHIFT);
}

function distanceEntry(symbol: number, length: number): number {
  if (symbol >= DISTANCE_CODES) return Special.invalid;
  return (length + distanceExtra(symbol)) | (length << NEEDS_SHIFT);
}
