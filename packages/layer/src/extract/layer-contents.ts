import { LayercacheError } from '@layercache/oci';
import type { Content } from '../merge/tree.js';

/** Bytes of a file that pass by: where in the file they belong. */
export interface Portion<T> {
  readonly file: T;
  readonly position: number;
  readonly bytes: Uint8Array;
}

interface Stretch<T> {
  readonly file: T;
  /** In the tar. */
  readonly start: number;
  readonly end: number;
  /** In the file. */
  readonly position: number;
}

function stretches<T>(file: T, { offset, size, sparse }: Content): Stretch<T>[] {
  if (sparse === undefined) return [{ file, start: offset, end: offset + size, position: 0 }];
  let start = offset;
  return sparse.segments.map((segment) => {
    const stretch = { file, start, end: start + segment.size, position: segment.offset };
    start += segment.size;
    return stretch;
  });
}

/**
 * The contents of many files of one layer, found in its tar as it streams by once.
 *
 * @throws LayercacheError `ARCHIVE_INVALID` when the tar ends before the last of them
 */
export async function* contentsOf<T>(
  tar: AsyncIterable<Uint8Array>,
  files: readonly { readonly file: T; readonly content: Content }[],
): AsyncGenerator<Portion<T>> {
  const wanted = files
    .flatMap(({ file, content }) => stretches(file, content))
    .filter(({ start, end }) => end > start)
    .sort((a, b) => a.start - b.start);
  let next = 0;
  let at = 0;
  // To the end even when nothing more is wanted: only there is the tar known to be the right one.
  for await (const piece of tar) {
    const pieceEnd = at + piece.length;
    for (
      let stretch = wanted[next];
      stretch !== undefined && stretch.start < pieceEnd;
      stretch = wanted[next]
    ) {
      const from = Math.max(stretch.start, at);
      const to = Math.min(stretch.end, pieceEnd);
      const position = stretch.position + from - stretch.start;
      yield { file: stretch.file, position, bytes: piece.subarray(from - at, to - at) };
      if (stretch.end > pieceEnd) break;
      next++;
    }
    at = pieceEnd;
  }
  if (next < wanted.length) {
    throw new LayercacheError(
      'ARCHIVE_INVALID',
      `the tar of the layer ends at byte ${at}, before files that it should have; index the layer again`,
    );
  }
}
