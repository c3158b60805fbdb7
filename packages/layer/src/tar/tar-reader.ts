import type { EntryType, SparseMap, SparseSegment, TarEntry, Timestamp } from './entry.js';
import { XATTR_PREFIX } from './entry.js';
import { BLOCK_SIZE, isZero, padding, parseHeader, parseNumber, text, type Header } from './header.js';
import { refuse, TAR_LIMITS, type TarLimits } from './limits.js';
import { parseDecimal, parsePax, parsePaxTime, parseSparseMap } from './pax.js';

const TYPES: ReadonlyMap<string, EntryType> = new Map([
  ['\0', 'reg'],
  ['0', 'reg'],
  ['1', 'hardlink'],
  ['2', 'symlink'],
  ['3', 'char'],
  ['4', 'block'],
  ['5', 'dir'],
  ['6', 'fifo'],
  // "Contiguous" files are files.
  ['7', 'reg'],
  ['S', 'reg'],
]);

const NO_RECORDS: ReadonlyMap<string, string> = new Map();

/** An entry whose header has been read and whose sparse map has not. */
interface Pending {
  readonly header: Header;
  readonly type: EntryType;
  readonly mtime: Timestamp;
  readonly pax: ReadonlyMap<string, string>;
  readonly segments: SparseSegment[];
  /** Bytes of the file with its holes. */
  readonly realSize: number;
}

type State = 'header' | 'metadata' | 'skip' | 'old sparse map' | 'sparse map' | 'end';

/**
 * Reads the headers of a tar as it streams by: ustar, pax, GNU and star archives. `tar` from npm is not used
 * for this since it gives neither offsets nor sparse maps, binary attributes or names that are not UTF-8.
 *
 * Data is not looked at; what entries say about it is checked against what there is.
 */
export class TarReader {
  readonly #onEntry: (entry: TarEntry) => void;
  readonly #limits: TarLimits;
  readonly #block = Buffer.alloc(BLOCK_SIZE);
  #state: State = 'header';
  /** Bytes of the current block or metadata that are here. */
  #have = 0;
  /** Bytes to pass over before the next state, and which of those may be missing at the end: padding. */
  #skip = 0;
  #optional = 0;
  #offset = 0;
  #end: number | undefined;
  #sawZeroBlock = false;

  #metadata = Buffer.alloc(0);
  #metadataType = '';
  #pax: Map<string, string> | undefined;
  #global = new Map<string, string>();
  #longName: string | undefined;
  #longLink: string | undefined;
  #pending: Pending | undefined;
  #mapText = '';
  #mapSize = 0;
  #mapLines = 0;

  #entries = 0;
  #metadataTotal = 0;

  constructor(onEntry: (entry: TarEntry) => void, limits: TarLimits = TAR_LIMITS) {
    this.#onEntry = onEntry;
    this.#limits = limits;
  }

  /** Bytes seen so far. */
  get offset(): number {
    return this.#offset;
  }

  /** Where the archive ends: behind its two zero blocks, or where the bytes end. */
  get end(): number {
    return this.#end ?? this.#offset;
  }

  /** @throws LayercacheError `ARCHIVE_INVALID` */
  push(chunk: Uint8Array): void {
    let at = 0;
    while (at < chunk.length) {
      if (this.#state === 'end') {
        this.#offset += chunk.length - at;
        return;
      }
      if (this.#state === 'skip') {
        const here = Math.min(this.#skip, chunk.length - at);
        at += here;
        this.#offset += here;
        this.#skip -= here;
        if (this.#skip === 0) this.#state = 'header';
        continue;
      }
      const target = this.#state === 'metadata' ? this.#metadata : this.#block;
      const here = Math.min(target.length - this.#have, chunk.length - at);
      target.set(chunk.subarray(at, at + here), this.#have);
      at += here;
      this.#offset += here;
      this.#have += here;
      if (this.#have < target.length) return;
      this.#have = 0;
      this.#takeBlock();
    }
  }

  /** @throws LayercacheError `ARCHIVE_INVALID` when the bytes end inside an entry */
  finish(): void {
    const isBetweenEntries = this.#state === 'header' && this.#have === 0 && !this.#awaitsEntry;
    const isInPadding = this.#state === 'skip' && this.#skip <= this.#optional;
    if (this.#state !== 'end' && !isBetweenEntries && !isInPadding) {
      refuse(this.#offset, 'it is truncated: it ends inside an entry');
    }
  }

  get #awaitsEntry(): boolean {
    return this.#pax !== undefined || this.#longName !== undefined || this.#longLink !== undefined;
  }

  #takeBlock(): void {
    switch (this.#state) {
      case 'metadata':
        this.#takeMetadata();
        return;
      case 'old sparse map':
        this.#takeOldSparseMap(this.#block.subarray(0, 504), this.#block[504] ?? 0);
        return;
      case 'sparse map':
        this.#takeSparseMap();
        return;
      default:
        this.#takeHeader();
    }
  }

  #takeHeader(): void {
    const start = this.#offset - BLOCK_SIZE;
    if (isZero(this.#block)) {
      if (this.#sawZeroBlock) {
        this.#state = 'end';
        this.#end = this.#offset;
      }
      this.#sawZeroBlock = true;
      return;
    }
    if (this.#sawZeroBlock) refuse(start, 'there is an entry behind a block of zeros');
    const header = parseHeader(this.#block, start);
    if ('xgLK'.includes(header.typeflag)) {
      if (header.size < 0 || header.size > this.#limits.header) {
        refuse(start, `an extended header of ${header.size} bytes is larger than ${this.#limits.header}`);
      }
      this.#metadataType = header.typeflag;
      this.#metadata = Buffer.alloc(header.size + padding(header.size));
      this.#state = 'metadata';
      this.#mapSize = header.size;
      if (this.#metadata.length === 0) this.#takeMetadata();
      return;
    }
    this.#begin(header, start);
  }

  #takeMetadata(): void {
    const bytes = this.#metadata.subarray(0, this.#mapSize);
    this.#metadata = Buffer.alloc(0);
    this.#state = 'header';
    if (this.#metadataType === 'L') this.#longName = text(bytes);
    else if (this.#metadataType === 'K') this.#longLink = text(bytes);
    else {
      const records = parsePax(bytes);
      if (typeof records === 'string') refuse(this.#offset, records);
      if (this.#metadataType === 'x') this.#pax = records;
      else for (const [key, value] of records) this.#global.set(key, value);
    }
  }

  /** Joins a header with what extended headers said before it. */
  #begin(header: Header, start: number): void {
    const typeOfFlag = TYPES.get(header.typeflag);
    if (typeOfFlag === undefined)
      refuse(start, `entries of type ${JSON.stringify(header.typeflag)} do not belong in a layer`);
    const local = this.#pax ?? NO_RECORDS;
    const record = (key: string): string | undefined => {
      // An empty local record cancels a global one, and leaves the header's own field.
      const value = local.get(key) ?? this.#global.get(key);
      return value === '' ? undefined : value;
    };
    const number = (key: string, otherwise: number): number => {
      const value = record(key);
      const parsed = value === undefined ? otherwise : parseDecimal(value);
      if (parsed === undefined)
        refuse(start, `the pax record ${JSON.stringify(key)} is not a number in range`);
      return parsed;
    };
    header.name = this.#longName ?? record('GNU.sparse.name') ?? record('path') ?? header.name;
    header.linkname = this.#longLink ?? record('linkpath') ?? header.linkname;
    header.uname = record('uname') ?? header.uname;
    header.gname = record('gname') ?? header.gname;
    header.uid = number('uid', header.uid);
    header.gid = number('gid', header.gid);
    header.size = number('size', header.size);
    const time = record('mtime');
    const mtime = time === undefined ? { seconds: header.mtime, nanoseconds: 0 } : parsePaxTime(time);
    if (mtime === undefined) refuse(start, 'the pax record "mtime" is not a time');
    for (const id of [header.uid, header.gid]) {
      if (id < 0 || id > 0xffff_ffff) refuse(start, `the owner ${id} is out of range`);
    }
    // Archives older than ustar mark a directory by its name.
    const type = header.typeflag === '\0' && header.name.endsWith('/') ? 'dir' : typeOfFlag;
    const isData = type === 'reg';
    if (!isData) header.size = 0;
    if (header.size < 0) refuse(start, 'the size of an entry is negative');
    const pax = this.#withGlobalAttributes(local);
    this.#pax = undefined;
    this.#longName = undefined;
    this.#longLink = undefined;
    const pending: Pending = {
      header,
      type,
      mtime,
      pax,
      segments: [],
      realSize: isData ? number('GNU.sparse.realsize', number('GNU.sparse.size', header.size)) : 0,
    };
    this.#count(pending, start);
    if (header.typeflag === 'S') {
      const realSize = parseNumber(this.#block.subarray(483, 495));
      if (realSize === undefined) refuse(start, 'the size of a sparse file is not a number in range');
      this.#pending = { ...pending, realSize };
      this.#takeOldSparseMap(this.#block.subarray(386, 482), this.#block[482] ?? 0);
      return;
    }
    if (isData && record('GNU.sparse.major') === '1' && record('GNU.sparse.minor') === '0') {
      this.#pending = pending;
      this.#mapText = '';
      this.#mapSize = 0;
      this.#mapLines = 0;
      this.#state = 'sparse map';
      return;
    }
    const map = isData ? record('GNU.sparse.map') : undefined;
    if (map === undefined) {
      this.#emit(pending, undefined, header.size);
      return;
    }
    const segments = parseSparseMap(map);
    if (segments === undefined) refuse(start, 'the map of a sparse file is not a list of numbers');
    this.#emit(pending, { size: pending.realSize, segments }, header.size);
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

  /** Entries of 12 octal digits each for offset and size (GNU tar manual, "Old GNU Format"). */
  #takeOldSparseMap(map: Uint8Array, isExtended: number): void {
    const pending = this.#pending;
    if (pending === undefined) return;
    for (let at = 0; at + 24 <= map.length && map[at] !== 0; at += 24) {
      const offset = parseNumber(map.subarray(at, at + 12));
      const size = parseNumber(map.subarray(at + 12, at + 24));
      if (offset === undefined || size === undefined) {
        refuse(this.#offset, 'the map of a sparse file is not a list of numbers');
      }
      pending.segments.push({ offset, size });
      this.#checkSegments(pending.segments.length);
    }
    if (isExtended !== 0) this.#state = 'old sparse map';
    else this.#emit(pending, { size: pending.realSize, segments: pending.segments }, pending.header.size);
  }

  /** Version 1.0: the map is decimal numbers, one a line, in whole blocks in front of the data. */
  #takeSparseMap(): void {
    const pending = this.#pending;
    if (pending === undefined) return;
    this.#mapSize += BLOCK_SIZE;
    if (this.#mapSize > pending.header.size)
      refuse(this.#offset, 'the map of a sparse file is larger than the file');
    this.#mapText += this.#block.toString('latin1');
    for (const byte of this.#block) if (byte === 0x0a) this.#mapLines++;
    if (this.#mapLines > 0) {
      const count = parseDecimal(this.#mapText.slice(0, this.#mapText.indexOf('\n')).slice(0, 20));
      if (count === undefined || count < 0)
        refuse(this.#offset, 'the map of a sparse file is not a list of numbers');
      this.#checkSegments(count);
      if (this.#mapLines > count * 2) {
        const numbers = this.#mapText.split('\n', 1 + count * 2).slice(1);
        const segments = parseSparseMap(numbers.join(','));
        if (segments === undefined) refuse(this.#offset, 'the map of a sparse file is not a list of numbers');
        this.#mapText = '';
        this.#emit(pending, { size: pending.realSize, segments }, pending.header.size - this.#mapSize);
      }
    } else if (this.#mapSize > BLOCK_SIZE) refuse(this.#offset, 'the map of a sparse file has no length');
  }

  #checkSegments(count: number): void {
    if (count > this.#limits.segments) {
      refuse(this.#offset, `a sparse file has more than ${this.#limits.segments} segments`);
    }
  }

  #count(pending: Pending, start: number): void {
    const { header, pax } = pending;
    this.#entries++;
    if (this.#entries > this.#limits.entries)
      refuse(start, `it has more than ${this.#limits.entries} entries`);
    if (Math.max(header.name.length, header.linkname.length) > this.#limits.name) {
      refuse(start, `a name is longer than ${this.#limits.name} bytes`);
    }
    this.#metadataTotal += header.name.length + header.linkname.length;
    for (const [key, value] of pax) this.#metadataTotal += key.length + value.length;
    if (this.#metadataTotal > this.#limits.metadata) {
      refuse(start, `its names and attributes take more than ${this.#limits.metadata} bytes`);
    }
  }

  /** @param stored bytes of data that follow now */
  #emit(pending: Pending, sparse: SparseMap | undefined, stored: number): void {
    const { header, type, mtime, pax } = pending;
    this.#pending = undefined;
    if (sparse !== undefined) this.#checkSparse(sparse, stored);
    this.#optional = padding(stored);
    this.#skip = stored + this.#optional;
    this.#state = this.#skip === 0 ? 'header' : 'skip';
    this.#onEntry({
      name: header.name,
      type,
      linkname: type === 'hardlink' || type === 'symlink' ? header.linkname : '',
      offset: this.#offset,
      size: stored,
      sparse,
      mode: header.mode,
      uid: header.uid,
      gid: header.gid,
      uname: header.uname,
      gname: header.gname,
      mtime,
      devmajor: header.devmajor,
      devminor: header.devminor,
      pax,
    });
  }

  /** A map must be in order, inside the file, and account for every stored byte. */
  #checkSparse({ size, segments }: SparseMap, stored: number): void {
    let end = 0;
    let total = 0;
    for (const segment of segments) {
      if (segment.offset < end || segment.size < 0)
        refuse(this.#offset, 'the map of a sparse file is not in order');
      end = segment.offset + segment.size;
      total += segment.size;
    }
    if (end > size || total !== stored) {
      refuse(this.#offset, 'the map of a sparse file does not fit its size');
    }
  }
}
