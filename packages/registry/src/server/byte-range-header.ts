/** First and last byte of what is wanted, both included. */
export interface WantedRange {
  readonly first: number;
  readonly last: number;
}

/**
 * Reads a `Range` header for something of `size` bytes (RFC 9110, section 14.1.2).
 *
 * @returns undefined where the whole is to be sent: no header, another unit, several ranges, or nonsense, all of
 *   which a server may ignore; `'unsatisfiable'` where the answer is 416
 */
export function parseRange(
  header: string | undefined,
  size: number,
): WantedRange | 'unsatisfiable' | undefined {
  const [, from = '', to = ''] = /^bytes=\s*(\d{0,15})-(\d{0,15})\s*$/.exec(header ?? '') ?? [];
  if (from === '' && to === '') return undefined;
  if (from === '') {
    const length = Math.min(Number(to), size);
    return length === 0 ? 'unsatisfiable' : { first: size - length, last: size - 1 };
  }
  const first = Number(from);
  const last = to === '' ? size - 1 : Math.min(Number(to), size - 1);
  if (to !== '' && Number(to) < first) return undefined;
  return first >= size ? 'unsatisfiable' : { first, last };
}

/** Reads the `Content-Range` of a chunk: `<first>-<last>`, which is not HTTP's own syntax (end-5). */
export function parseChunkRange(header: string): WantedRange | undefined {
  const [, from = '', to = ''] = /^(\d{1,15})-(\d{1,15})$/.exec(header) ?? [];
  if (from === '') return undefined;
  return { first: Number(from), last: Number(to) };
}
