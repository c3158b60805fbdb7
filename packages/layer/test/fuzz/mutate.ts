/** Numbers that are random enough, and the same for the same seed (xorshift32). */
export class Random {
  #state: number;

  constructor(seed: number) {
    this.#state = seed | 0 || 1;
  }

  /** An integer from 0 up to and without `end`. */
  below(end: number): number {
    this.#state ^= this.#state << 13;
    this.#state ^= this.#state >>> 17;
    this.#state ^= this.#state << 5;
    return end <= 1 ? 0 : (this.#state >>> 0) % end;
  }

  of<T>(all: readonly T[]): T {
    const found = all[this.below(all.length)];
    if (found === undefined) throw new RangeError('there is nothing to choose from');
    return found;
  }
}

/** Bytes that a decoder is to be tried with, and which of them are worth changing. */
export interface Seed {
  readonly bytes: Buffer;
  /** A stretch in which any bytes will do, so that few changes are made there. */
  readonly dull?: { readonly start: number; readonly end: number };
}

const BYTES = [0, 1, 2, 0x0a, 0x1f, 0x20, 0x2c, 0x2d, 0x30, 0x37, 0x39, 0x3d, 0x7f, 0x80, 0xbf, 0xfe, 0xff];
const NUMBERS = [
  0,
  1,
  2,
  3,
  7,
  255,
  256,
  511,
  512,
  32_768,
  65_535,
  2 ** 31 - 1,
  2 ** 31,
  2 ** 32 - 1,
].flatMap((number) => [BigInt(number), -BigInt(number), BigInt(number) << 21n]);

function place({ bytes, dull }: Seed, size: number, random: Random): number {
  const at = random.below(size);
  const isDull = dull !== undefined && at >= dull.start && at < dull.end;
  if (!isDull || random.below(20) === 0) return at;
  const outside = random.below(bytes.length - (dull.end - dull.start));
  return Math.min(outside < dull.start ? outside : outside + dull.end - dull.start, size);
}

/** The bytes of a seed with one to six changes: of bits, bytes, numbers and digits, of stretches, of the length. */
export function mutate(seed: Seed, random: Random): Buffer {
  let bytes = Buffer.from(seed.bytes);
  for (let change = random.below(6); change >= 0; change--) {
    const at = place(seed, bytes.length, random);
    const length = Math.min(bytes.length - at, 1 << random.below(11));
    const rest = bytes.subarray(at);
    switch (random.below(9)) {
      case 0:
        if (rest.length > 0) bytes.writeUInt8(rest.readUInt8(0) ^ (1 << random.below(8)), at);
        break;
      case 1:
        if (rest.length > 0) bytes.writeUInt8(random.of(BYTES), at);
        break;
      case 2:
        if (rest.length > 0) bytes.writeUInt8(random.below(256), at);
        break;
      case 3: {
        const size = random.of([2, 4, 8]);
        const number = Buffer.alloc(8);
        number.writeBigInt64LE(random.of(NUMBERS));
        bytes.set(number.subarray(0, Math.min(size, rest.length)), at);
        break;
      }
      case 4:
        bytes.fill(random.of(BYTES), at, at + Math.min(length, 64));
        break;
      case 5:
        bytes = Buffer.concat([bytes.subarray(0, at), bytes.subarray(at + length)]);
        break;
      case 6:
        bytes = Buffer.concat([bytes.subarray(0, at + length), rest]);
        break;
      case 7:
        bytes.copy(bytes, at, random.below(bytes.length), random.below(bytes.length + 1));
        break;
      default:
        if (random.below(4) === 0) bytes = bytes.subarray(0, at);
        else if (rest.length > 0) bytes.write(String(random.below(10)), at, 'latin1');
    }
  }
  return bytes;
}
