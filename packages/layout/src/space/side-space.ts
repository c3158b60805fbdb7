import { isSystemError, type FileSystem } from '../file-system.js';
import { canonicalJson } from '../index-document.js';
import type { Change } from '../journal-format.js';
import type { StatePaths } from '../snapshot.js';
import type { Space } from './space.js';

/** A journal record has at least this part of the bytes of its entry in `index.json`. */
const JOURNAL_RATIO = 9;
/** Bytes of a record beside what it says, and of an entry's counterparts in other entries. */
const RECORD_OVERHEAD = 256;
/** Bytes of pages that are not full, of the cache index's own entry and of new headers. */
const OVERHEAD = 48 * 1024;
/** The part of a limit that the journal may take before it is folded. */
const JOURNAL_SHARE = 1024;
const SMALLEST_JOURNAL = 64 * 1024;

/**
 * A bound for the bytes that a commit writes before it can unlink any: a new `index.json`, a new map, a journal, and
 * shards and cache index, which repeat what is in `index.json`.
 *
 * @param changes what is appended to the journal before
 */
export function spaceForCommit(files: FileSystem, paths: StatePaths, changes: readonly Change[]): number {
  const coming = JOURNAL_RATIO * sizeOf(files, paths.journal) + spaceForChanges(changes);
  const index = sizeOf(files, paths.index);
  const map = sizeOf(files, paths.map);
  return 2 * (index + coming) + Math.max(map, index) + 2 * coming + OVERHEAD;
}

/** A bound for what changes add to the journal, or to `index.json`. */
export function spaceForChanges(changes: readonly Change[]): number {
  return changes.reduce((sum, change) => sum + RECORD_OVERHEAD + Buffer.byteLength(canonicalJson(change)), 0);
}

/** Bytes that the journal may have before it is folded. */
export function journalBound(wanted: number, space: Space | undefined): number {
  if (space === undefined) return wanted;
  return Math.min(wanted, Math.max(SMALLEST_JOURNAL, space.maxSize / JOURNAL_SHARE));
}

function sizeOf(files: FileSystem, path: string): number {
  try {
    return Number(files.statSync(path).size);
  } catch (error) {
    if (isSystemError(error, 'ENOENT', 'ENOTDIR')) return 0;
    throw error;
  }
}
