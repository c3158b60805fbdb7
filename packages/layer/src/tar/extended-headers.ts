import type { Timestamp } from './entry.js';
import { text, type Header } from './header.js';
import { refuse } from './limits.js';
import { parseDecimal, parsePax, parsePaxTime } from './pax.js';
import { sparseFormat } from './sparse-map.js';

const NO_RECORDS: ReadonlyMap<string, string> = new Map();

/** What extended headers say of one entry. */
export interface EntryRecords {
  readonly mtime: Timestamp;
  readonly pax: ReadonlyMap<string, string>;
  /** The value of a record; undefined when it is empty. */
  value(key: string): string | undefined;
  /** @throws LayercacheError `ARCHIVE_INVALID` when the record is no number */
  number(key: string, otherwise: number): number;
}

/** The headers in front of an entry: of pax, and GNU's long names. */
export class ExtendedHeaders {
  #pax: Map<string, string> | undefined;
  #longName: string | undefined;
  #longLink: string | undefined;

  static isOne(typeflag: string): boolean {
    return 'xgLK'.includes(typeflag);
  }

  /** Whether one has been taken whose entry is still to come. */
  get awaitEntry(): boolean {
    return this.#pax !== undefined || this.#longName !== undefined || this.#longLink !== undefined;
  }

  /**
   * Takes the next one. A global header is only checked, and makes an entry of its own for Go's reader, and so for
   * every container runtime: the headers before it are lost, and its records apply to nothing.
   *
   * @throws LayercacheError `ARCHIVE_INVALID`
   */
  take(typeflag: string, bytes: Uint8Array, offset: number): void {
    // An empty one names nothing: the entry keeps its own, in Go's reader as well.
    if (typeflag === 'L') this.#longName = nonEmpty(text(bytes));
    else if (typeflag === 'K') this.#longLink = nonEmpty(text(bytes));
    else {
      const records = parsePax(bytes);
      if (typeof records === 'string') refuse(offset, records);
      if (typeflag === 'x') this.#pax = records;
      else this.#forget();
    }
  }

  /**
   * Puts what was taken into the header of its entry, and forgets it.
   *
   * @throws LayercacheError `ARCHIVE_INVALID`
   */
  applyTo(header: Header, offset: number): EntryRecords {
    const pax = this.#pax ?? NO_RECORDS;
    const value = (key: string): string | undefined => {
      // An empty record leaves the header's own field.
      const found = pax.get(key);
      return found === '' ? undefined : found;
    };
    const number = (key: string, otherwise: number): number => {
      const found = value(key);
      const parsed = found === undefined ? otherwise : parseDecimal(found);
      if (parsed === undefined)
        refuse(offset, `the pax record ${JSON.stringify(key)} is not a number in range`);
      return parsed;
    };
    const isSparse = header.typeflag !== 'S' && sparseFormat(value) !== undefined;
    const sparseName = isSparse ? value('GNU.sparse.name') : undefined;
    header.name = sparseName ?? this.#longName ?? value('path') ?? header.name;
    header.linkname = this.#longLink ?? value('linkpath') ?? header.linkname;
    header.uname = value('uname') ?? header.uname;
    header.gname = value('gname') ?? header.gname;
    header.uid = number('uid', header.uid);
    header.gid = number('gid', header.gid);
    header.size = number('size', header.size);
    const time = value('mtime');
    const mtime = time === undefined ? { seconds: header.mtime, nanoseconds: 0 } : parsePaxTime(time);
    if (mtime === undefined) refuse(offset, 'the pax record "mtime" is not a time');
    this.#forget();
    return { mtime, pax, value, number };
  }

  #forget(): void {
    this.#pax = undefined;
    this.#longName = undefined;
    this.#longLink = undefined;
  }
}

function nonEmpty(name: string): string | undefined {
  return name === '' ? undefined : name;
}
