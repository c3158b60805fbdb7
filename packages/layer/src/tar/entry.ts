/** What kind of thing an entry makes, by the names a zTOC has for them. */
export type EntryType = 'reg' | 'hardlink' | 'symlink' | 'dir' | 'char' | 'block' | 'fifo';

/** A point in time, before or after 1970, to the nanosecond. */
export interface Timestamp {
  /** Whole seconds since 1970, rounded down. */
  readonly seconds: number;
  /** 0 to 999,999,999, on top of `seconds`. */
  readonly nanoseconds: number;
}

/** A stretch of a sparse file that has data. */
export interface SparseSegment {
  /** Where in the file, in bytes. */
  readonly offset: number;
  readonly size: number;
}

/** A file with holes: its stored bytes are the segments, one after the other. */
export interface SparseMap {
  /** Bytes of the file, holes included. */
  readonly size: number;
  readonly segments: readonly SparseSegment[];
}

/**
 * One entry of a tar as the archive has it: nothing is resolved, cleaned or refused. Text is as `decodeBytes`
 * makes it, so that every byte survives.
 */
export interface TarEntry {
  readonly name: string;
  readonly type: EntryType;
  /** Target of a hardlink or symlink. */
  readonly linkname: string;
  /** Where the stored data starts, in bytes from the start of the tar. */
  readonly offset: number;
  /** Bytes stored. 0 for all but regular files. */
  readonly size: number;
  readonly sparse: SparseMap | undefined;
  /** Permission bits with setuid, setgid, sticky; and whatever else the header has there. */
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly uname: string;
  readonly gname: string;
  readonly mtime: Timestamp;
  readonly devmajor: number;
  readonly devminor: number;
  /** The entry's own pax records. */
  readonly pax: ReadonlyMap<string, string>;
}

export const XATTR_PREFIX = 'SCHILY.xattr.';

/** Extended attributes by name. Values are `decodeBytes` text: binary ones survive `encodeBytes`. */
export function xattrs(entry: Pick<TarEntry, 'pax'>): Map<string, string> {
  const found = new Map<string, string>();
  for (const [key, value] of entry.pax) {
    if (key.startsWith(XATTR_PREFIX)) found.set(key.slice(XATTR_PREFIX.length), value);
  }
  return found;
}
