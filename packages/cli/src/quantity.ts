import { LayercacheError } from '@layercache/oci';

const SIZE_UNITS: Readonly<Record<string, number>> = {
  b: 1,
  kb: 1e3,
  mb: 1e6,
  gb: 1e9,
  tb: 1e12,
  kib: 2 ** 10,
  mib: 2 ** 20,
  gib: 2 ** 30,
  tib: 2 ** 40,
};

const HOUR = 3_600_000;
const TIME_UNITS: Readonly<Record<string, number>> = {
  s: 1000,
  m: 60_000,
  h: HOUR,
  d: 24 * HOUR,
  w: 7 * 24 * HOUR,
};

/**
 * Bytes, from `500MB`, `1.5GiB` or a plain number.
 *
 * @param what where it stands: `--max-size`
 * @throws LayercacheError `USAGE`
 */
export function parseSize(text: string, what: string): number {
  const [, count = '', unit = ''] = /^(\d+(?:\.\d+)?)([a-z]*)$/i.exec(text) ?? [];
  const bytes = quantity(count, SIZE_UNITS[unit === '' ? 'b' : unit.toLowerCase()]);
  if (bytes !== undefined) return bytes;
  throw new LayercacheError('USAGE', `${what} ${text}: expected a size such as 500MB, 20GB or 512MiB`);
}

/**
 * Milliseconds, from `12h`, `7d` or `4w`.
 *
 * @param what where it stands: `--unused-for`
 * @throws LayercacheError `USAGE`
 */
export function parseDuration(text: string, what: string): number {
  const [, count = '', unit = ''] = /^(\d+)([smhdw])$/.exec(text) ?? [];
  const milliseconds = quantity(count, TIME_UNITS[unit]);
  if (milliseconds !== undefined) return milliseconds;
  throw new LayercacheError('USAGE', `${what} ${text}: expected a time such as 30m, 12h, 7d or 4w`);
}

function quantity(count: string, unit: number | undefined): number | undefined {
  const value = Math.round(Number(count) * (unit ?? NaN));
  return count !== '' && Number.isSafeInteger(value) ? value : undefined;
}
