import type { EntryType, SparseMap, SparseSegment, TarEntry, Timestamp } from './entry.js';
import { ExtendedHeaders, type EntryRecords } from './extended-headers.js';
import { BLOCK_SIZE, isZero, padding, parseHeader, parseNumber, type Header } from './header.js';
import { MetadataBudget, RECORD_COST, refuse, SEGMENT_COST, TAR_LIMITS, type TarLimits } from './limits.js';
import {
  OldSparseMap,
  parseSparseMap,
  PaxSparseMap,
  sparseFormat,
  sparseMapProblem,
  type SparseMapBlocks,
} from './sparse-map.js';

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

/** An entry whose header has been read and whose sparse map has not. */
interface Pending {
  readonly header: Header;
  readonly type: EntryType;
  readonly mtime: Timestamp;
  readonly pax: ReadonlyMap<string, string>;
  /** Bytes of the file with its holes. */
  readonly realSize: number;
}

type State = 'header' | 'metadata' | 'skip' | 'sparse map' | 'end';

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

  readonly #extended = new ExtendedHeaders();
  /** An extended header, with its padding. */
  #metadata = Buffer.alloc(0);
  #metadataSize = 0;
  #metadataType = '';
  #sparse: { readonly pending: Pending; readonly map: SparseMapBlocks } | undefined;

  #entries = 0;
  readonly #budget: MetadataBudget;

  constructor(onEntry: (entry: TarEntry) => void, limits: TarLimits = TAR_LIMITS) {
    this.#onEntry = onEntry;
    this.#limits = limits;
    this.#budget = new MetadataBudget(limits.metadata);
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
    const isBetweenEntries = this.#state === 'header' && this.#have === 0 && !this.#extended.awaitEntry;
    const isInPadding = this.#state === 'skip' && this.#skip <= this.#optional;
    if (this.#state !== 'end' && !isBetweenEntries && !isInPadding) {
      refuse(this.#offset, 'it is truncated: it ends inside an entry');
    }
  }

  #takeBlock(): void {
    if (this.#state === 'metadata') this.#takeMetadata();
    else if (this.#state === 'sparse map') this.#takeSparseMap();
    else this.#takeHeader();
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
    if (ExtendedHeaders.isOne(header.typeflag)) {
      if (header.size < 0 || header.size > this.#limits.header) {
        refuse(start, `an extended header of ${header.size} bytes is larger than ${this.#limits.header}`);
      }
      this.#metadataType = header.typeflag;
      this.#metadata = Buffer.alloc(header.size + padding(header.size));
      this.#state = 'metadata';
      this.#metadataSize = header.size;
      if (this.#metadata.length === 0) this.#takeMetadata();
      return;
    }
    this.#begin(header, start);
  }

  #takeMetadata(): void {
    const bytes = this.#metadata.subarray(0, this.#metadataSize);
    this.#metadata = Buffer.alloc(0);
    this.#state = 'header';
    this.#extended.take(this.#metadataType, bytes, this.#offset);
  }

  #begin(header: Header, start: number): void {
    const typeOfFlag = TYPES.get(header.typeflag);
    if (typeOfFlag === undefined)
      refuse(start, `entries of type ${JSON.stringify(header.typeflag)} do not belong in a layer`);
    const records = this.#extended.applyTo(header, start);
    header.uid = owner(header.uid, start);
    header.gid = owner(header.gid, start);
    // Archives older than ustar mark a directory by its name.
    const type = header.typeflag === '\0' && header.name.endsWith('/') ? 'dir' : typeOfFlag;
    if (type !== 'reg') header.size = 0;
    if (header.size < 0) refuse(start, 'the size of an entry is negative');
    const { mtime, pax } = records;
    const pending: Pending = { header, type, mtime, pax, realSize: header.size };
    this.#count(pending, start);
    if (type === 'reg') this.#beginFile(pending, records, start);
    else this.#emit(pending, undefined, 0);
  }

  #beginFile(pending: Pending, records: EntryRecords, start: number): void {
    const { size, typeflag } = pending.header;
    const limit = this.#limits.segments;
    if (typeflag === 'S') {
      const realSize = parseNumber(this.#block.subarray(483, 495));
      if (realSize === undefined) refuse(start, 'the size of a sparse file is not a number in range');
      const map = new OldSparseMap(limit);
      this.#sparse = { pending: { ...pending, realSize }, map };
      this.#takeSegments(map.takeHeader(this.#block, this.#offset));
      return;
    }
    const format = sparseFormat((key) => records.value(key));
    if (format === undefined) {
      this.#emit(pending, undefined, size);
      return;
    }
    const realSize = records.number('GNU.sparse.realsize', records.number('GNU.sparse.size', size));
    if (format === '1.0') {
      this.#sparse = { pending: { ...pending, realSize }, map: new PaxSparseMap(limit, size) };
      this.#state = 'sparse map';
      return;
    }
    const segments = parseSparseMap(records.value('GNU.sparse.map') ?? '', limit);
    if (typeof segments === 'string') refuse(start, segments);
    this.#emit(pending, { size: realSize, segments }, size);
  }

  #takeSparseMap(): void {
    this.#takeSegments(this.#sparse?.map.take(this.#block, this.#offset));
  }

  /** @param segments undefined when more of the map is to come */
  #takeSegments(segments: readonly SparseSegment[] | undefined): void {
    if (this.#sparse === undefined || segments === undefined) {
      this.#state = 'sparse map';
      return;
    }
    const { pending, map } = this.#sparse;
    this.#sparse = undefined;
    this.#emit(pending, { size: pending.realSize, segments }, pending.header.size - map.size);
  }

  #count(pending: Pending, start: number): void {
    const { header, pax } = pending;
    this.#entries++;
    if (this.#entries > this.#limits.entries)
      refuse(start, `it has more than ${this.#limits.entries} entries`);
    if (Math.max(header.name.length, header.linkname.length) > this.#limits.name) {
      refuse(start, `a name is longer than ${this.#limits.name} bytes`);
    }
    let cost = header.name.length + header.linkname.length;
    for (const [key, value] of pax) cost += key.length + value.length + RECORD_COST;
    this.#take(cost, start);
  }

  #take(cost: number, offset: number): void {
    if (this.#budget.take(cost)) return;
    refuse(offset, `its names and attributes take more than ${this.#limits.metadata} bytes`);
  }

  /** @param stored bytes of data that follow now */
  #emit(pending: Pending, sparse: SparseMap | undefined, stored: number): void {
    const { header, type, mtime, pax } = pending;
    if (sparse !== undefined) {
      const problem = sparseMapProblem(sparse, stored);
      if (problem !== undefined) refuse(this.#offset, problem);
      this.#take(sparse.segments.length * SEGMENT_COST, this.#offset);
    }
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
}

/** An owner as file systems have it: 32 bits, where -2 is the same as 4,294,967,294. */
function owner(id: number, offset: number): number {
  if (id < -0x8000_0000 || id > 0xffff_ffff) refuse(offset, `the owner ${id} is out of range`);
  return id >>> 0;
}
