import { XATTR_PREFIX, type Timestamp } from './entry.js';
import { text, type Header } from './header.js';
import { refuse } from './limits.js';
import { parseDecimal, parsePax, parsePaxTime } from './pax.js';

const NO_RECORDS: ReadonlyMap<string, string> = new Map();

/** What extended headers say of one entry. */
export interface EntryRecords {
  readonly mtime: Timestamp;
  /** Its own records, and the extended attributes of global headers. */
  readonly pax: ReadonlyMap<string, string>;
  /** The value of a record, its own or a global one. */
  value(key: string): string | undefined;
  /** @throws LayercacheError `ARCHIVE_INVALID` when the record is no number */
  number(key: string, otherwise: number): number;
}

/** The headers in front of an entry: of pax, its own and global ones, and GNU's long names. */
export class ExtendedHeaders {
  #pax: Map<string, string> | undefined;
  readonly #global = new Map<string, string>();
  #longName: string | undefined;
  #longLink: string | undefined;

  static isOne(typeflag: string): boolean {
    return 'xgLK'.includes(typeflag);
  }

  /** Whether one has been taken whose entry is still to come. */
  get awaitEntry(): boolean {
    return this.#pax !== undefined || this.#longName !== undefined || this.#longLink !== undefined;
  }

  /** @throws LayercacheError `ARCHIVE_INVALID` */
  take(typeflag: string, bytes: Uint8Array, offset: number): void {
    if (typeflag === 'L') this.#longName = text(bytes);
    else if (typeflag === 'K') this.#longLink = text(bytes);
    else {
      const records = parsePax(bytes);
      if (typeof records === 'string') refuse(offset, records);
      if (typeflag === 'x') this.#pax = records;
      else for (const [key, value] of records) this.#global.set(key, value);
    }
  }

  /**
   * Puts what was taken into the header of its entry, and forgets all that is not global.
   *
   * @throws LayercacheError `ARCHIVE_INVALID`
   */
  applyTo(header: Header, offset: number): EntryRecords {
    const local = this.#pax ?? NO_RECORDS;
    const value = (key: string): string | undefined => {
      // An empty local record cancels a global one, and leaves the header's own field.
      const found = local.get(key) ?? this.#global.get(key);
      return found === '' ? undefined : found;
    };
    const number = (key: string, otherwise: number): number => {
      const found = value(key);
      const parsed = found === undefined ? otherwise : parseDecimal(found);
      if (parsed === undefined)
        refuse(offset, `the pax record ${JSON.stringify(key)} is not a number in range`);
      return parsed;
    };
    header.name = this.#longName ?? value('GNU.sparse.name') ?? value('path') ?? header.name;
    header.linkname = this.#longLink ?? value('linkpath') ?? header.linkname;
    header.uname = value('uname') ?? header.uname;
    header.gname = value('gname') ?? header.gname;
    header.uid = number('uid', header.uid);
    header.gid = number('gid', header.gid);
    header.size = number('size', header.size);
    const time = value('mtime');
    const mtime = time === undefined ? { seconds: header.mtime, nanoseconds: 0 } : parsePaxTime(time);
    if (mtime === undefined) refuse(offset, 'the pax record "mtime" is not a time');
    const pax = this.#withGlobalAttributes(local);
    this.#pax = undefined;
    this.#longName = undefined;
    this.#longLink = undefined;
    return { mtime, pax, value, number };
  }

  /** Extended attributes of global headers belong to every entry; all else of them is in its fields. */
  #withGlobalAttributes(local: ReadonlyMap<string, string>): ReadonlyMap<string, string> {
    let merged: Map<string, string> | undefined;
    for (const [key, value] of this.#global) {
      if (!key.startsWith(XATTR_PREFIX) || local.has(key)) continue;
      merged ??= new Map(local);
      merged.set(key, value);
    }
    return merged ?? local;
  }
}
