/*
 * A number of 64 bits is two of 32 here, the low one first: with BigInt, this is many times slower.
 */

const P1_LOW = 0x85ebca87;
const P1_HIGH = 0x9e3779b1;
const P2_LOW = 0x27d4eb4f;
const P2_HIGH = 0xc2b2ae3d;

/** The seed 0 in each of the four lanes: P1 + P2, P2, 0, -P1. */
const START = Int32Array.of(0xadc0b5d6, 0x60ea27ee, P2_LOW, P2_HIGH, 0, 0, -P1_LOW, ~P1_HIGH);

/** Bytes that are taken at once. */
const STRIPE = 32;

const MASK = 0xffff_ffff_ffff_ffffn;
const P1 = 0x9e3779b185ebca87n;
const P2 = 0xc2b2ae3d27d4eb4fn;
const P3 = 0x165667b19e3779f9n;
const P4 = 0x85ebca77c2b2ae63n;
const P5 = 0x27d4eb2f165667c5n;

function rotated(value: bigint, bits: bigint): bigint {
  return ((value << bits) | (value >> (64n - bits))) & MASK;
}

function mixed(accumulator: bigint, lane: bigint): bigint {
  return (rotated((accumulator + lane * P2) & MASK, 31n) * P1) & MASK;
}

/** XXH64 with the seed 0 (the xxHash specification, version 0.1.1): the checksum of zstd frames, of its low half. */
export class Xxh64 {
  readonly #lanes = Int32Array.from(START);
  readonly #stripe = Buffer.alloc(STRIPE);
  #filled = 0;
  #size = 0;

  update(bytes: Uint8Array): void {
    this.#size += bytes.length;
    let at = 0;
    if (this.#filled > 0) {
      at = Math.min(STRIPE - this.#filled, bytes.length);
      this.#stripe.set(bytes.subarray(0, at), this.#filled);
      this.#filled += at;
      if (this.#filled < STRIPE) return;
      this.#filled = 0;
      this.#takeStripes(this.#stripe, 0, STRIPE);
    }
    const end = at + Math.floor((bytes.length - at) / STRIPE) * STRIPE;
    this.#takeStripes(bytes, at, end);
    this.#stripe.set(bytes.subarray(end), 0);
    this.#filled = bytes.length - end;
  }

  digest(): bigint {
    let hash = P5;
    if (this.#size >= STRIPE) {
      const lanes = [0, 1, 2, 3].map((lane) => this.#lane(lane));
      hash =
        lanes.reduce((sum, lane, index) => sum + rotated(lane, [1n, 7n, 12n, 18n][index] ?? 0n), 0n) & MASK;
      for (const lane of lanes) hash = ((hash ^ mixed(0n, lane)) * P1 + P4) & MASK;
    }
    hash = (hash + BigInt(this.#size)) & MASK;
    let at = 0;
    for (; at + 8 <= this.#filled; at += 8)
      hash = (rotated(hash ^ mixed(0n, this.#stripe.readBigUInt64LE(at)), 27n) * P1 + P4) & MASK;
    if (at + 4 <= this.#filled) {
      hash = (rotated(hash ^ ((BigInt(this.#stripe.readUInt32LE(at)) * P1) & MASK), 23n) * P2 + P3) & MASK;
      at += 4;
    }
    for (; at < this.#filled; at++)
      hash = (rotated(hash ^ ((BigInt(this.#stripe.readUInt8(at)) * P5) & MASK), 11n) * P1) & MASK;
    hash = ((hash ^ (hash >> 33n)) * P2) & MASK;
    hash = ((hash ^ (hash >> 29n)) * P3) & MASK;
    return hash ^ (hash >> 32n);
  }

  #lane(index: number): bigint {
    const low = (this.#lanes[index * 2] ?? 0) >>> 0;
    const high = (this.#lanes[index * 2 + 1] ?? 0) >>> 0;
    return (BigInt(high) << 32n) | BigInt(low);
  }

  /** For each lane and its 8 bytes: `lane = rotl(lane + bytes * P2, 31) * P1`. */
  #takeStripes(bytes: Uint8Array, from: number, end: number): void {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    const lanes = this.#lanes;
    for (let lane = 0; lane < 8; lane += 2) {
      let low = (lanes[lane] ?? 0) >>> 0;
      let high = lanes[lane + 1] ?? 0;
      for (let at = from + lane * 4; at < end; at += STRIPE) {
        const inputLow = view.getUint32(at, true);
        const inputHigh = view.getUint32(at + 4, true);
        // + bytes * P2
        low += Math.imul(inputLow, P2_LOW) >>> 0;
        high += highProduct(inputLow, P2_LOW) + Math.imul(inputLow, P2_HIGH) + Math.imul(inputHigh, P2_LOW);
        high += low > 0xffff_ffff ? 1 : 0;
        // rotl 31
        const rotatedLow = (low << 31) | (high >>> 1);
        const rotatedHigh = (high << 31) | (low >>> 1);
        // * P1
        low = Math.imul(rotatedLow, P1_LOW) >>> 0;
        high =
          (highProduct(rotatedLow >>> 0, P1_LOW) +
            Math.imul(rotatedLow, P1_HIGH) +
            Math.imul(rotatedHigh, P1_LOW)) |
          0;
      }
      lanes[lane] = low;
      lanes[lane + 1] = high;
    }
  }
}

/** The high 32 bits of the product of two unsigned numbers of 32 bits. */
function highProduct(a: number, b: number): number {
  const aLow = a & 0xffff;
  const aHigh = a >>> 16;
  const bLow = b & 0xffff;
  const bHigh = b >>> 16;
  const middle = aHigh * bLow + ((aLow * bLow) >>> 16);
  const other = aLow * bHigh + (middle & 0xffff);
  return aHigh * bHigh + (middle >>> 16) + (other >>> 16);
}
