import { LayercacheError } from '@layercache/oci';
import { MAX_DEPTH } from './tree.js';

export interface CleanPath {
  /** Names from the root on; none for the root itself. */
  readonly parts: readonly string[];
  /** Whether more than `./` and trailing slashes had to be cleaned. */
  readonly isUnusual: boolean;
}

/**
 * The path that a tar's name stands for below the root of the image; undefined when it stands for nothing
 * inside.
 *
 * @throws LayercacheError `ARCHIVE_INVALID` when it is too deep
 */
export function cleanPath(name: string): CleanPath | undefined {
  if (name === '' || name.includes('\0')) return undefined;
  const parts: string[] = [];
  let isUnusual = name.startsWith('/');
  for (const part of name.split('/')) {
    if (part === '' || part === '.') continue;
    if (part === '..') {
      if (parts.pop() === undefined) return undefined;
      isUnusual = true;
    } else parts.push(part);
  }
  if (parts.length > MAX_DEPTH) {
    throw new LayercacheError(
      'ARCHIVE_INVALID',
      `a path of the layer leads through ${parts.length} folders, more than ${MAX_DEPTH}; the layer cannot be merged`,
    );
  }
  return { parts, isUnusual };
}
