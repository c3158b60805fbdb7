import type { Timestamp } from '../tar/entry.js';

/** RFC 3339 with as many digits of the second as are needed; empty outside the years 0 to 9999. */
export function formatTimestamp({ seconds, nanoseconds }: Timestamp): string {
  const date = new Date(seconds * 1000);
  if (Number.isNaN(date.getTime())) return '';
  const text = date.toISOString();
  if (text.length !== 24) return '';
  const fraction = nanoseconds === 0 ? '' : `.${String(nanoseconds).padStart(9, '0').replace(/0+$/, '')}`;
  return `${text.slice(0, 19)}${fraction}Z`;
}

/** What `formatTimestamp` wrote, or another program, with any zone; undefined when it is no time. */
export function parseTimestamp(text: string): Timestamp | undefined {
  const match = /^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)$/.exec(text);
  if (match === null) return undefined;
  const time = Date.parse(`${match[1] ?? ''}${match[3] ?? ''}`);
  if (Number.isNaN(time)) return undefined;
  return { seconds: time / 1000, nanoseconds: Number((match[2] ?? '').padEnd(9, '0')) };
}
