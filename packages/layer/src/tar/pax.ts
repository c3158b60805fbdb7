import { decodeBytes } from './byte-string.js';
import type { Timestamp } from './entry.js';

const NO_NUL = new Set(['path', 'linkpath', 'uname', 'gname']);

/**
 * Parses an extended header: records of `"%d %s=%s\n"` (POSIX.1-2017 pax, "pax Extended Header"). Returns what
 * is wrong with it as a string.
 */
export function parsePax(bytes: Uint8Array): Map<string, string> | string {
  const records = new Map<string, string>();
  const segments: string[] = [];
  for (let at = 0; at < bytes.length;) {
    const space = bytes.indexOf(0x20, at);
    const digits =
      space === -1 || space - at > 8 ? '' : Buffer.from(bytes.subarray(at, space)).toString('latin1');
    if (!/^\d+$/.test(digits)) return 'a pax record has no length';
    const end = at + Number(digits);
    const equals = bytes.indexOf(0x3d, space);
    if (
      end > bytes.length ||
      bytes[end - 1] !== 0x0a ||
      equals === -1 ||
      equals >= end - 1 ||
      equals === space + 1
    ) {
      return 'a pax record is not "length key=value"';
    }
    const key = decodeBytes(bytes.subarray(space + 1, equals));
    const value = decodeBytes(bytes.subarray(equals + 1, end - 1));
    if (key.includes('\0') || (NO_NUL.has(key) && value.includes('\0')))
      return 'a pax record has a NUL in it';
    at = end;
    if (key === 'GNU.sparse.offset' || key === 'GNU.sparse.numbytes') {
      // Version 0.0 repeats these two, in turn; version 0.1 says the same in one record.
      if ((segments.length % 2 === 0) !== (key === 'GNU.sparse.offset'))
        return 'its sparse map is not in order';
      segments.push(value);
    } else records.set(key, value);
  }
  if (segments.length > 0) records.set('GNU.sparse.map', segments.join(','));
  return records;
}

/** Digits of a pax number; undefined when they are none, or the number is too large to be exact. */
export function parseDecimal(value: string): number | undefined {
  const number = /^-?\d{1,16}$/.test(value) ? Number(value) : Number.NaN;
  return Number.isSafeInteger(number) ? number : undefined;
}

/** Seconds with a fraction of any length, of which nanoseconds are kept. */
export function parsePaxTime(value: string): Timestamp | undefined {
  const match = /^(-?)(\d{1,16})(?:\.(\d*))?$/.exec(value);
  if (match === null) return undefined;
  const whole = Number(match[2]);
  const fraction = Number((match[3] ?? '').slice(0, 9).padEnd(9, '0'));
  if (!Number.isSafeInteger(whole)) return undefined;
  if (match[1] === '') return { seconds: whole, nanoseconds: fraction };
  if (fraction === 0) return { seconds: 0 - whole, nanoseconds: 0 };
  return { seconds: -whole - 1, nanoseconds: 1_000_000_000 - fraction };
}
