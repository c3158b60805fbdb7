import type { SparseMap, SparseSegment } from './entry.js';
import { BLOCK_SIZE, parseNumber } from './header.js';
import { refuse } from './limits.js';
import { parseDecimal } from './pax.js';

const NO_NUMBERS = 'the map of a sparse file is not a list of numbers';

/** The versions of GNU tar's sparse files in pax archives: `0.x` has its map in the records, `1.0` in front of the data. */
export type SparseFormat = '0.x' | '1.0';

/**
 * The version that the records of a regular file ask for, by the rules of Go's reader; undefined when the file is not
 * sparse, or has a version that does not exist: it is then read as it is.
 */
export function sparseFormat(record: (key: string) => string | undefined): SparseFormat | undefined {
  const version = [record('GNU.sparse.major') ?? '', record('GNU.sparse.minor') ?? ''].join('.');
  if (version === '1.0') return '1.0';
  const hasMap = record('GNU.sparse.map') !== undefined;
  return hasMap && ['.', '0.0', '0.1'].includes(version) ? '0.x' : undefined;
}

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

const NEWLINE = 0x0a;
/** Digits of a number, at most. */
const MAX_DIGITS = 16;

/** Version 1.0: the map is decimal numbers, one a line, in whole blocks in front of the data. */
export class PaxSparseMap implements SparseMapBlocks {
  size = 0;
  readonly #limit: number;
  readonly #stored: number;
  readonly #segments: SparseSegment[] = [];
  /** Segments that the first line announces. */
  #count: number | undefined;
  #offset: number | undefined;
  /** The number that is being read. */
  #number = 0;
  #digits = 0;

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
    for (const byte of block) {
      if (byte === NEWLINE) this.#takeNumber(offset);
      else {
        const digit = byte - 0x30;
        if (digit < 0 || digit > 9 || this.#digits === MAX_DIGITS) refuse(offset, NO_NUMBERS);
        this.#number = this.#number * 10 + digit;
        this.#digits++;
      }
      if (this.#segments.length === this.#count) return this.#segments;
    }
    return undefined;
  }

  #takeNumber(offset: number): void {
    const number = this.#number;
    if (this.#digits === 0 || !Number.isSafeInteger(number)) refuse(offset, NO_NUMBERS);
    this.#number = 0;
    this.#digits = 0;
    if (this.#count === undefined) {
      checkCount(number, this.#limit, offset);
      this.#count = number;
    } else if (this.#offset === undefined) this.#offset = number;
    else {
      this.#segments.push({ offset: this.#offset, size: number });
      this.#offset = undefined;
    }
  }
}

function checkCount(count: number, limit: number, offset: number): void {
  if (count > limit) refuse(offset, `a sparse file has more than ${limit} segments`);
}

/**
 * Parses the map in the pax records of versions 0.0 and 0.1: `offset,size,offset,size,…`. Returns what is wrong with it
 * as a string.
 */
export function parseSparseMap(record: string, limit: number): SparseSegment[] | string {
  if (record === '') return [];
  const numbers = record.split(',', limit * 2 + 1).map(parseDecimal);
  if (numbers.length > limit * 2) return `a sparse file has more than ${limit} segments`;
  const segments: SparseSegment[] = [];
  for (let at = 0; at < numbers.length; at += 2) {
    const offset = numbers[at];
    const size = numbers[at + 1];
    if (offset === undefined || size === undefined) return NO_NUMBERS;
    segments.push({ offset, size });
  }
  return segments;
}

/** Why a map cannot be that of a file; undefined if it can: in order, inside the file, accounting for every stored byte. */
export function sparseMapProblem({ size, segments }: SparseMap, stored: number): string | undefined {
  let end = 0;
  let total = 0;
  for (const segment of segments) {
    if (segment.offset < end || segment.size < 0) return 'the map of a sparse file is not in order';
    end = segment.offset + segment.size;
    total += segment.size;
  }
  return end > size || total !== stored ? 'the map of a sparse file does not fit its size' : undefined;
}
