import { decodeBytes } from './byte-string.js';
import { refuse } from './limits.js';

export const BLOCK_SIZE = 512;

/** The fields of one header block (POSIX.1-2017 pax, "ustar Interchange Format"; GNU tar, "Standard"). */
export interface Header {
  name: string;
  linkname: string;
  readonly typeflag: string;
  size: number;
  readonly mode: number;
  uid: number;
  gid: number;
  uname: string;
  gname: string;
  /** Whole seconds. */
  readonly mtime: number;
  readonly devmajor: number;
  readonly devminor: number;
}

export function isZero(block: Uint8Array): boolean {
  return block.every((byte) => byte === 0);
}

/** Bytes up to the next block boundary. */
export function padding(size: number): number {
  return -size & (BLOCK_SIZE - 1);
}

/** @param offset of the block in the tar, for the error */
export function parseHeader(block: Uint8Array, offset: number): Header {
  if (!hasValidChecksum(block)) refuse(offset, 'the checksum of a header is wrong');
  const field = (from: number, size: number): Uint8Array => block.subarray(from, from + size);
  const number = (what: string, from: number, size: number): number => {
    const value = parseNumber(field(from, size));
    if (value === undefined) refuse(offset, `${what} of an entry is not a number in range`);
    return value;
  };
  const header: Header = {
    name: text(field(0, 100)),
    mode: number('the mode', 100, 8),
    uid: number('the uid', 108, 8),
    gid: number('the gid', 116, 8),
    size: number('the size', 124, 12),
    mtime: number('the mtime', 136, 12),
    typeflag: String.fromCharCode(block[156] ?? 0),
    linkname: text(field(157, 100)),
    uname: '',
    gname: '',
    devmajor: 0,
    devminor: 0,
  };
  const magic = Buffer.from(field(257, 8)).toString('latin1');
  const isGnu = magic === 'ustar  \0';
  if (!isGnu && !magic.startsWith('ustar\0')) return header;
  const prefix = prefixOf(block, isGnu);
  return {
    ...header,
    name: prefix === '' ? header.name : `${prefix}/${header.name}`,
    uname: text(field(265, 32)),
    gname: text(field(297, 32)),
    devmajor: number('the major device number', 329, 8),
    devminor: number('the minor device number', 337, 8),
  };
}

/** The front part of a long name, which only POSIX archives have. */
function prefixOf(block: Uint8Array, isGnu: boolean): string {
  const field = (from: number, size: number): Uint8Array => block.subarray(from, from + size);
  if (!isGnu) {
    // star keeps access and change times behind a shorter prefix, and says so in the last bytes.
    const isStar = Buffer.from(field(508, 4)).toString('latin1') === 'tar\0';
    return text(field(345, isStar ? 131 : 155));
  }
  // Go before 1.8 wrote a prefix where GNU tar has two times; layers of that age are still about. Go's reader
  // tells them apart like this, too: they are no numbers, but they are ASCII.
  const times = [field(345, 12), field(357, 12)];
  if (times.every((time) => time[0] === 0 || parseNumber(time) !== undefined)) return '';
  const prefix = field(345, 155);
  return prefix.every((byte) => byte < 0x80) ? text(prefix) : '';
}

/** The sum of all bytes, with the checksum itself as spaces; some old tars summed signed bytes. */
function hasValidChecksum(block: Uint8Array): boolean {
  const expected = parseNumber(block.subarray(148, 156));
  let unsigned = 0;
  let signed = 0;
  for (let at = 0; at < BLOCK_SIZE; at++) {
    const byte = at >= 148 && at < 156 ? 0x20 : (block[at] ?? 0);
    unsigned += byte;
    signed += (byte << 24) >> 24;
  }
  return expected === unsigned || expected === signed;
}

export function text(field: Uint8Array): string {
  const end = field.indexOf(0);
  return decodeBytes(end === -1 ? field : field.subarray(0, end));
}

/** A number in octal, or in base 256 as GNU and star write large and negative ones; undefined if neither. */
export function parseNumber(field: Uint8Array): number | undefined {
  const first = field[0] ?? 0;
  if ((first & 0x80) !== 0) {
    const isNegative = (first & 0x40) !== 0;
    let value = BigInt(isNegative ? first | ~0x7f : first & 0x7f);
    for (const byte of field.subarray(1)) value = value * 256n + BigInt(byte);
    const number = Number(value);
    return Number.isSafeInteger(number) ? number : undefined;
  }
  let at = 0;
  while (at < field.length && isFiller(field[at])) at++;
  let value = 0;
  for (; at < field.length && !isFiller(field[at]); at++) {
    const digit = (field[at] ?? 0) - 0x30;
    if (digit < 0 || digit > 7) return undefined;
    value = value * 8 + digit;
  }
  // Behind a NUL there may be anything; behind a space only filling. (Go, which unpacks most layers, agrees.)
  while (at < field.length && field[at] === 0x20) at++;
  return at === field.length || field[at] === 0 ? value : undefined;
}

function isFiller(byte: number | undefined): boolean {
  return byte === 0x20 || byte === 0;
}
