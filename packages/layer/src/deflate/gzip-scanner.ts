import { LayercacheError } from '@layercache/oci';
import {
  BITS_MASK,
  CodeTable,
  LOOKUP_BITS,
  OUTPUT_MASK,
  OUTPUT_SHIFT,
  Special,
  SPECIAL_MASK,
  STATE_SHIFT,
} from './code-table.js';
import { GzipHeader } from './gzip-header.js';

/** A place in a gzip stream where a deflate block starts, from which inflation can be taken up. */
export interface BlockStart {
  /** Offset in the gzip stream of the first byte that belongs to the block as a whole. */
  readonly input: number;
  /** How many of the highest bits of the byte before `input` belong to the block, too: 0 to 7. */
  readonly bits: number;
  /** Bytes of output before the block, all members together. */
  readonly output: number;
}

/** Largest piece followed at once. 1 MiB of deflate is at most 1032 MiB of output, so counts stay 32 bits. */
const PIECE = 1 << 20;
/** A dynamic block header has at most 562 bytes; one is only begun when it is here as a whole. */
const HEADER_MARGIN = 1024;
/** A look-up reads four bytes, a slow step at most twice that. */
const CODE_MARGIN = 16;

const CODE_LENGTH_ORDER = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];

type State = 'member header' | 'block header' | 'stored' | 'codes' | 'trailer' | 'padding';

/**
 * Finds the block starts of a gzip stream (RFC 1951, RFC 1952; any number of members) by following its Huffman
 * codes. Nothing is decompressed: no output is written and no match copied, which is why it is fast. What
 * only the output can show (checksums, distances that reach too far back) is left to whoever inflates.
 *
 * Memory is constant: a little over 1 MiB.
 */
export class GzipScanner {
  readonly #onBlockStart: (start: BlockStart) => void;
  readonly #buffer = new Uint8Array(PIECE + 2 * HEADER_MARGIN);
  readonly #view = new DataView(this.#buffer.buffer);
  readonly #dynamicTable = new CodeTable();
  readonly #lengths = new Uint8Array(320);
  /** Codes of the current block. */
  #table = this.#dynamicTable;
  /** Bytes in the buffer, and the offset in the stream of its first. */
  #filled = 0;
  #base = 0;
  /** Bit in the buffer that comes next. */
  #at = 0;
  #output = 0;
  #state: State = 'member header';
  #header = new GzipHeader();
  #lastBlock = false;
  /** Bytes of a stored block, or of a trailer, still to come. */
  #left = 0;
  /** 0 where a literal or length is due, 2^LOOKUP_BITS where a distance is. */
  #half = 0;
  #ended = false;
  /** Why the stream is no gzip. Its state is of no use from then on. */
  #failure: LayercacheError | undefined;

  constructor(onBlockStart: (start: BlockStart) => void) {
    this.#onBlockStart = onBlockStart;
  }

  /** Bytes of input that have been followed entirely. Block starts reported later lie at or behind it. */
  get input(): number {
    return this.#base + (this.#at >>> 3);
  }

  /** Bytes of output that the input followed so far stands for. */
  get output(): number {
    return this.#output;
  }

  /** @throws LayercacheError `COMPRESSION_INVALID` with the offset where the stream is no gzip */
  push(chunk: Uint8Array): void {
    if (this.#failure !== undefined) throw this.#failure;
    for (let from = 0; from < chunk.length; from += PIECE) {
      const piece = chunk.subarray(from, from + PIECE);
      this.#buffer.set(piece, this.#filled);
      this.#filled += piece.length;
      this.#follow();
      const done = this.#at >>> 3;
      this.#buffer.copyWithin(0, done, this.#filled);
      this.#base += done;
      this.#filled -= done;
      this.#at &= 7;
    }
  }

  /** @throws LayercacheError `COMPRESSION_INVALID` when the stream is not complete */
  finish(): void {
    if (this.#failure !== undefined) throw this.#failure;
    this.#ended = true;
    this.#buffer.fill(0, this.#filled, this.#filled + HEADER_MARGIN);
    this.#follow();
    const complete = this.#state === 'padding' || (this.#state === 'member header' && this.#header.untouched);
    if (!complete || this.#base + this.#filled === 0) this.#truncated();
  }

  #follow(): void {
    const end = this.#filled * 8;
    const margin = this.#ended ? 0 : 8;
    while (this.#at < end) {
      if (this.#state === 'codes') {
        if (this.#at >= end - CODE_MARGIN * margin) return;
        this.#followCodes(end - CODE_MARGIN * margin);
      } else if (this.#state === 'block header') {
        if (this.#at >= end - HEADER_MARGIN * margin) return;
        this.#readBlockHeader();
      } else if (this.#state === 'stored') this.#skipStored();
      else if (this.#state === 'member header') this.#readMemberHeader();
      else if (this.#state === 'trailer') this.#skipTrailer();
      else this.#at = end;
      if (this.#at > end) this.#truncated();
    }
  }

  #readMemberHeader(): void {
    const header = this.#header;
    let at = this.#at >>> 3;
    while (at < this.#filled && !header.done) {
      const byte = this.#buffer[at] ?? 0;
      // Behind the first member zeros are padding, which gzip ignores (as zlib in Node does).
      if (byte === 0 && header.untouched && this.#base + at > 0) {
        this.#state = 'padding';
        break;
      }
      header.take(byte);
      if (header.problem !== undefined) this.#refuse(header.problem, at);
      at++;
    }
    this.#at = at * 8;
    if (!header.done) return;
    this.#header = new GzipHeader();
    this.#state = 'block header';
    this.#report();
  }

  #skipStored(): void {
    const here = Math.min(this.#left, this.#filled - (this.#at >>> 3));
    this.#left -= here;
    this.#output += here;
    this.#at += here * 8;
    if (this.#left === 0) this.#endBlock();
  }

  #skipTrailer(): void {
    const here = Math.min(this.#left, this.#filled - (this.#at >>> 3));
    this.#left -= here;
    this.#at += here * 8;
    if (this.#left === 0) this.#state = 'member header';
  }

  #endBlock(): void {
    if (!this.#lastBlock) {
      this.#state = 'block header';
      this.#report();
      return;
    }
    this.#at = (this.#at + 7) & ~7;
    this.#left = 8;
    this.#state = 'trailer';
  }

  #report(): void {
    const input = this.#base + ((this.#at + 7) >>> 3);
    this.#onBlockStart({ input, bits: -this.#at & 7, output: this.#output });
  }

  #bits(count: number): number {
    const bits = (this.#view.getUint32(this.#at >>> 3, true) >>> (this.#at & 7)) & ((1 << count) - 1);
    this.#at += count;
    return bits;
  }

  /** RFC 1951 sections 3.2.3 to 3.2.7. */
  #readBlockHeader(): void {
    const start = this.#at;
    this.#lastBlock = this.#bits(1) === 1;
    const type = this.#bits(2);
    if (type === 0) {
      this.#at = (this.#at + 7) & ~7;
      const length = this.#bits(16);
      if (this.#bits(16) !== (length ^ 0xffff)) this.#corrupt('a stored block has a wrong length', start);
      this.#left = length;
      if (length === 0) this.#endBlock();
      else this.#state = 'stored';
      return;
    }
    if (type === 3) this.#corrupt('a block has the reserved type 3', start);
    if (type === 1) this.#table = fixedTable();
    else {
      this.#table = this.#dynamicTable;
      const problem = this.#readDynamicCodes();
      if (problem !== undefined) this.#corrupt(`a block is not valid: ${problem}`, start);
    }
    this.#half = 0;
    this.#state = 'codes';
  }

  #readDynamicCodes(): string | undefined {
    const literalCount = this.#bits(5) + 257;
    const distanceCount = this.#bits(5) + 1;
    const codeLengthCount = this.#bits(4) + 4;
    if (literalCount > 286 || distanceCount > 30) return 'it has too many codes';

    const codeLengths = new Uint8Array(19);
    for (let index = 0; index < codeLengthCount; index++)
      codeLengths[CODE_LENGTH_ORDER[index] ?? 0] = this.#bits(3);
    const decoder = codeLengthDecoder(codeLengths);
    if (decoder === undefined) return 'its code length code is not a complete prefix code';

    const lengths = this.#lengths;
    const total = literalCount + distanceCount;
    for (let index = 0; index < total;) {
      const entry = decoder[(this.#view.getUint32(this.#at >>> 3, true) >>> (this.#at & 7)) & 127] ?? 0;
      this.#at += entry >>> 5;
      const symbol = entry & 31;
      if (symbol < 16) {
        lengths[index++] = symbol;
        continue;
      }
      if (symbol === 16 && index === 0) return 'it repeats a code length before the first';
      const value = symbol === 16 ? (lengths[index - 1] ?? 0) : 0;
      const count =
        symbol === 16 ? 3 + this.#bits(2) : symbol === 17 ? 3 + this.#bits(3) : 11 + this.#bits(7);
      if (index + count > total) return 'it repeats a code length past the last';
      lengths.fill(value, index, index + count);
      index += count;
    }
    if (this.#at > this.#filled * 8) this.#truncated();
    return this.#dynamicTable.set(lengths, literalCount, distanceCount);
  }

  /** Follows codes to the end of the block, or until `limit` (a bit in the buffer) has been reached. */
  #followCodes(limit: number): void {
    const view = this.#view;
    const entries = this.#table.entries;
    const mask = (1 << LOOKUP_BITS) - 1;
    let at = this.#at;
    let half = this.#half;
    let output = 0;
    while (at < limit) {
      let entry = entries[half + ((view.getUint32(at >>> 3, true) >>> (at & 7)) & mask)] ?? 0;
      if (entry < 0) {
        if ((entry & SPECIAL_MASK) === Special.long) {
          const bits = view.getUint32(at >>> 3, true) >>> (at & 7);
          entry = half === 0 ? this.#table.resolveLiteral(bits) : this.#table.resolveDistance(bits);
        }
        if (entry < 0) {
          this.#at = at;
          this.#output += output;
          if (entry === Special.invalid) this.#corrupt('a block has a code that stands for nothing', at);
          this.#at += entry & BITS_MASK;
          this.#endBlock();
          return;
        }
      }
      at += entry & BITS_MASK;
      output += (entry >>> OUTPUT_SHIFT) & OUTPUT_MASK;
      half = ((entry >>> STATE_SHIFT) & 1) << LOOKUP_BITS;
    }
    this.#at = at;
    this.#half = half;
    this.#output += output;
  }

  /** @param bit where in the buffer */
  #corrupt(problem: string, bit: number): never {
    // Behind the end there are only zeros, put there by `finish`.
    if (this.#ended && bit + 64 > this.#filled * 8) this.#truncated();
    this.#refuse(problem, bit >>> 3);
  }

  #refuse(problem: string, at: number): never {
    this.#fail(`the gzip stream is corrupt at byte ${this.#base + at}: ${problem}; fetch the layer again`);
  }

  #truncated(): never {
    const end = this.#base + this.#filled;
    this.#fail(
      `the gzip stream is truncated: it ends at byte ${end} before its data does; fetch the layer again`,
    );
  }

  #fail(message: string): never {
    this.#failure = new LayercacheError('COMPRESSION_INVALID', message);
    throw this.#failure;
  }
}

let fixed: CodeTable | undefined;

/** The fixed codes (RFC 1951 section 3.2.6), made once: a block of them may have ten bits, and there may be millions. */
function fixedTable(): CodeTable {
  if (fixed === undefined) {
    fixed = new CodeTable();
    const lengths = new Uint8Array(320);
    lengths.fill(8, 0, 144).fill(9, 144, 256).fill(7, 256, 280).fill(8, 280, 288).fill(5, 288, 320);
    fixed.set(lengths, 288, 32);
  }
  return fixed;
}

/** A table over 7 bits of `length << 5 | symbol`; undefined when the code is not complete. */
function codeLengthDecoder(lengths: Uint8Array): Uint8Array | undefined {
  const decoder = new Uint8Array(128);
  let code = 0;
  for (let length = 1; length <= 7; length++) {
    for (let symbol = 0; symbol < 19; symbol++) {
      if (lengths[symbol] !== length) continue;
      if (code >= 128) return undefined;
      const step = 1 << length;
      let reversed = 0;
      for (let bit = 0; bit < 7; bit++) reversed |= ((code >>> bit) & 1) << (6 - bit);
      for (let index = reversed; index < 128; index += step) decoder[index] = (length << 5) | symbol;
      code += 128 >>> length;
    }
  }
  return code === 128 ? decoder : undefined;
}
