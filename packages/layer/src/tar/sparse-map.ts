import type { SparseMap, SparseSegment } from './entry.js';
import { BLOCK_SIZE, parseNumber } from './header.js';
import { refuse } from './limits.js';
import { parseDecimal, parseSparseMap } from './pax.js';

const NO_NUMBERS = 'the map of a sparse file is not a list of numbers';

/** The map of a sparse file that stands in blocks between its header and its data. */
export interface SparseMapBlocks {
  /** Bytes of the entry's data that were the map. */
  readonly size: number;
  /**
   * Takes the next block. Returns the segments when that was the last.
   *
   * @param offset behind the block, for the error
   * @throws LayercacheError `ARCHIVE_INVALID`
   */
  take(block: Buffer, offset: number): readonly SparseSegment[] | undefined;
}

/** Entries of 12 octal digits each for offset and size (GNU tar manual, "Old GNU Format"). */
export class OldSparseMap implements SparseMapBlocks {
  readonly size = 0;
  readonly #limit: number;
  readonly #segments: SparseSegment[] = [];

  /** @param limit segments, at most */
  constructor(limit: number) {
    this.#limit = limit;
  }

  /** The header of the file itself has the first four. */
  takeHeader(block: Buffer, offset: number): readonly SparseSegment[] | undefined {
    return this.#take(block.subarray(386, 482), block[482] !== 0, offset);
  }

  take(block: Buffer, offset: number): readonly SparseSegment[] | undefined {
    return this.#take(block.subarray(0, 504), block[504] !== 0, offset);
  }

  #take(map: Buffer, isExtended: boolean, offset: number): readonly SparseSegment[] | undefined {
    for (let at = 0; at + 24 <= map.length && map[at] !== 0; at += 24) {
      const start = parseNumber(map.subarray(at, at + 12));
      const size = parseNumber(map.subarray(at + 12, at + 24));
      if (start === undefined || size === undefined) refuse(offset, NO_NUMBERS);
      this.#segments.push({ offset: start, size });
      checkCount(this.#segments.length, this.#limit, offset);
    }
    return isExtended ? undefined : this.#segments;
  }
}

/** Version 1.0: the map is decimal numbers, one a line, in whole blocks in front of the data. */
export class PaxSparseMap implements SparseMapBlocks {
  size = 0;
  readonly #limit: number;
  readonly #stored: number;
  #text = '';
  #lines = 0;

  /**
   * @param limit segments, at most
   * @param stored bytes of the entry's data, the map included
   */
  constructor(limit: number, stored: number) {
    this.#limit = limit;
    this.#stored = stored;
  }

  take(block: Buffer, offset: number): readonly SparseSegment[] | undefined {
    this.size += BLOCK_SIZE;
    if (this.size > this.#stored) refuse(offset, 'the map of a sparse file is larger than the file');
    this.#text += block.toString('latin1');
    for (const byte of block) if (byte === 0x0a) this.#lines++;
    if (this.#lines === 0) {
      if (this.size > BLOCK_SIZE) refuse(offset, 'the map of a sparse file has no length');
      return undefined;
    }
    const count = parseDecimal(this.#text.slice(0, this.#text.indexOf('\n')).slice(0, 20));
    if (count === undefined || count < 0) refuse(offset, NO_NUMBERS);
    checkCount(count, this.#limit, offset);
    if (this.#lines <= count * 2) return undefined;
    const numbers = this.#text.split('\n', 1 + count * 2).slice(1);
    return parseSparseMap(numbers.join(',')) ?? refuse(offset, NO_NUMBERS);
  }
}

function checkCount(count: number, limit: number, offset: number): void {
  if (count > limit) refuse(offset, `a sparse file has more than ${limit} segments`);
}

/** The map in the pax records of versions 0.0 and 0.1. */
export function sparseMapOf(record: string, offset: number): readonly SparseSegment[] {
  return parseSparseMap(record) ?? refuse(offset, NO_NUMBERS);
}

/**
 * A map must be in order, inside the file, and account for every stored byte.
 *
 * @throws LayercacheError `ARCHIVE_INVALID`
 */
export function checkSparseMap({ size, segments }: SparseMap, stored: number, offset: number): void {
  let end = 0;
  let total = 0;
  for (const segment of segments) {
    if (segment.offset < end || segment.size < 0) refuse(offset, 'the map of a sparse file is not in order');
    end = segment.offset + segment.size;
    total += segment.size;
  }
  if (end > size || total !== stored) refuse(offset, 'the map of a sparse file does not fit its size');
}
