import { isDigest, type Digest } from '@layercache/oci';
import { Builder } from 'flatbuffers';
import { MAX_EXPANSION, spanStart, type Checkpoint } from '../deflate/checkpoint.js';
import { encodeBytes } from '../tar/byte-string.js';
import type { EntryType, SparseMap, TarEntry, Timestamp } from '../tar/entry.js';
import { BLOCK_SIZE, padding } from '../tar/header.js';
import { MetadataBudget, RECORD_COST, SEGMENT_COST, TAR_LIMITS } from '../tar/limits.js';
import { parseDecimal, parsePaxTime } from '../tar/pax.js';
import { parseSparseMap, sparseFormat, sparseMapProblem } from '../tar/sparse-map.js';
import { decodeCheckpoints, encodeCheckpoints } from './checkpoint-blob.js';
import { FlatbufferReader, refuseZtoc, type FlatbufferTable } from './flatbuffer-reader.js';
import { formatTimestamp, parseTimestamp } from './timestamp.js';
import { ZTOC_VERSION, type Ztoc } from './ztoc.js';

/*
 * The schema is SOCI's `ztoc.fbs` and `zinfo.fbs`. Tables are written in the order in which SOCI writes them, so
 * that the bytes are the same. Fields are numbered here:
 */
const ZtocField = {
  version: 0,
  builder: 1,
  compressedSize: 2,
  uncompressedSize: 3,
  toc: 4,
  info: 5,
} as const;
const InfoField = { algorithm: 0, maxSpan: 1, spanDigests: 2, checkpoints: 3 } as const;
const TarInfoField = { version: 0, spanSize: 1, size: 2 } as const;
const FileField = {
  name: 0,
  type: 1,
  offset: 2,
  size: 3,
  linkname: 4,
  mode: 5,
  uid: 6,
  gid: 7,
  uname: 8,
  gname: 9,
  mtime: 10,
  devmajor: 11,
  devminor: 12,
  pax: 13,
} as const;

const GZIP = 1;
const UNCOMPRESSED = 2;
const TAR_INFO_VERSION = 2;
const TYPES: ReadonlySet<string> = new Set<EntryType>([
  'reg',
  'hardlink',
  'symlink',
  'dir',
  'char',
  'block',
  'fifo',
]);

function isEntryType(type: string): type is EntryType {
  return TYPES.has(type);
}

/** The same index always gives the same bytes, and the bytes that SOCI has for it. */
export function encodeZtoc(ztoc: Ztoc): Uint8Array {
  const builder = new Builder(1 << 16);
  const version = builder.createString(ZTOC_VERSION);
  const tool = builder.createString(ztoc.builder);
  const entries = ztoc.entries.map(() => 0);
  for (let index = entries.length - 1; index >= 0; index--) {
    const entry = ztoc.entries[index];
    if (entry !== undefined) entries[index] = writeEntry(builder, entry);
  }
  const metadata = writeVector(builder, entries);
  builder.startObject(1);
  builder.addFieldOffset(0, metadata, 0);
  const toc = builder.endObject();

  const isGzip = ztoc.compression === 'gzip';
  const checkpoints = builder.createByteVector(isGzip ? encodeCheckpoints(ztoc) : encodeTarInfo(ztoc));
  const digests = writeVector(
    builder,
    ztoc.spanDigests.map((digest) => builder.createString(digest)),
  );
  builder.startObject(4);
  builder.addFieldInt32(InfoField.maxSpan, ztoc.spanDigests.length - 1, 0);
  builder.addFieldOffset(InfoField.spanDigests, digests, 0);
  builder.addFieldOffset(InfoField.checkpoints, checkpoints, 0);
  builder.addFieldInt8(InfoField.algorithm, isGzip ? GZIP : UNCOMPRESSED, GZIP);
  const info = builder.endObject();

  builder.startObject(6);
  builder.addFieldOffset(ZtocField.version, version, 0);
  builder.addFieldOffset(ZtocField.builder, tool, 0);
  builder.addFieldOffset(ZtocField.toc, toc, 0);
  builder.addFieldInt64(ZtocField.compressedSize, BigInt(ztoc.compressedSize), 0n);
  builder.addFieldInt64(ZtocField.uncompressedSize, BigInt(ztoc.uncompressedSize), 0n);
  builder.addFieldOffset(ZtocField.info, info, 0);
  builder.finish(builder.endObject());
  return builder.asUint8Array();
}

function writeVector(builder: Builder, offsets: readonly number[]): number {
  builder.startVector(4, offsets.length, 4);
  for (const offset of offsets.toReversed()) builder.addOffset(offset);
  return builder.endVector();
}

function encodeTarInfo(ztoc: Ztoc): Uint8Array {
  const builder = new Builder(64);
  builder.startObject(3);
  builder.addFieldInt32(TarInfoField.version, TAR_INFO_VERSION, 0);
  builder.addFieldInt64(TarInfoField.spanSize, BigInt(ztoc.spanSize), 0n);
  builder.addFieldInt64(TarInfoField.size, BigInt(ztoc.compressedSize), 0n);
  builder.finish(builder.endObject());
  return builder.asUint8Array();
}

function writeEntry(builder: Builder, entry: TarEntry): number {
  const string = (text: string): number => builder.createString(encodeBytes(text));
  const name = string(entry.name);
  const type = builder.createString(entry.type);
  const linkname = string(entry.linkname);
  const uname = string(entry.uname);
  const gname = string(entry.gname);
  const mtime = builder.createString(formatTimestamp(entry.mtime));
  const pax = writeVector(
    builder,
    paxToStore(entry).map(([key, value]) => {
      const keyOffset = string(key);
      const valueOffset = string(value);
      builder.startObject(2);
      builder.addFieldOffset(0, keyOffset, 0);
      builder.addFieldOffset(1, valueOffset, 0);
      return builder.endObject();
    }),
  );
  builder.startObject(14);
  builder.addFieldOffset(FileField.name, name, 0);
  builder.addFieldOffset(FileField.type, type, 0);
  builder.addFieldInt64(FileField.offset, BigInt(entry.offset), 0n);
  builder.addFieldInt64(FileField.size, BigInt(entry.size), 0n);
  builder.addFieldOffset(FileField.linkname, linkname, 0);
  builder.addFieldInt64(FileField.mode, BigInt(entry.mode), 0n);
  builder.addFieldInt32(FileField.uid, entry.uid | 0, 0);
  builder.addFieldInt32(FileField.gid, entry.gid | 0, 0);
  builder.addFieldOffset(FileField.uname, uname, 0);
  builder.addFieldOffset(FileField.gname, gname, 0);
  builder.addFieldOffset(FileField.mtime, mtime, 0);
  builder.addFieldInt64(FileField.devmajor, BigInt(entry.devmajor), 0n);
  builder.addFieldInt64(FileField.devminor, BigInt(entry.devminor), 0n);
  builder.addFieldOffset(FileField.pax, pax, 0);
  return builder.endObject();
}

/**
 * The pax records, sorted by key. The format has no place for a sparse map that was not a pax record, or for a
 * time outside the years 0 to 9999: both become the records that pax would have for them.
 */
function paxToStore(entry: TarEntry): [string, string][] {
  const records = new Map(entry.pax);
  if (entry.sparse !== undefined) {
    const segments = entry.sparse.segments.map(({ offset, size }) => `${offset},${size}`);
    records.set('GNU.sparse.map', segments.join(','));
    // In a header of GNU's own sparse type, a version means nothing. In a zTOC it would hide the map.
    if (sparseFormat((key) => records.get(key)) === undefined) {
      records.delete('GNU.sparse.major');
      records.delete('GNU.sparse.minor');
    }
    records.set('GNU.sparse.realsize', String(entry.sparse.size));
  }
  if (formatTimestamp(entry.mtime) === '') records.set('mtime', paxTime(entry.mtime));
  return [...records].sort(([a], [b]) => Buffer.compare(encodeBytes(a), encodeBytes(b)));
}

function paxTime({ seconds, nanoseconds }: Timestamp): string {
  const total = BigInt(seconds) * 1_000_000_000n + BigInt(nanoseconds);
  const digits = String(total < 0n ? -total : total).padStart(10, '0');
  return `${total < 0n ? '-' : ''}${digits.slice(0, -9)}.${digits.slice(-9)}`;
}

/**
 * Reads a zTOC that anyone may have made. Checkpoint windows are views of `bytes`.
 *
 * @throws LayercacheError `DOCUMENT_INVALID` unless every offset, size and digest in it is possible
 */
export function decodeZtoc(bytes: Uint8Array): Ztoc {
  const root = new FlatbufferReader(bytes).root;
  const version = root.text(ZtocField.version);
  if (version !== ZTOC_VERSION) {
    refuseZtoc(`its version is ${JSON.stringify(version.slice(0, 20))}, not ${ZTOC_VERSION}`);
  }
  const compressedSize = root.int64(ZtocField.compressedSize);
  const uncompressedSize = root.int64(ZtocField.uncompressedSize);
  if (compressedSize < 0 || uncompressedSize < 0) refuseZtoc('a size is negative');

  const info = root.table(ZtocField.info);
  if (info === undefined) refuseZtoc('it has no compression info');
  const { compression, spanSize, checkpoints, spans } = readSpans(info, compressedSize);
  const spanDigests = readDigests(info);
  if (spanDigests.length !== spans || info.int32(InfoField.maxSpan) !== spans - 1) {
    refuseZtoc('it has not one digest for each span');
  }

  checkTarSize(uncompressedSize, compressedSize, checkpoints);
  const entries = readEntries(root, uncompressedSize);
  const builder = root.text(ZtocField.builder);
  return {
    builder,
    compression,
    compressedSize,
    uncompressedSize,
    spanSize,
    checkpoints,
    spanDigests,
    entries,
  };
}

/** A tar is no larger than its layer, or than what deflate can make of the bytes from the last checkpoint on. */
function checkTarSize(
  uncompressedSize: number,
  compressedSize: number,
  checkpoints: readonly Checkpoint[],
): void {
  const last = checkpoints.at(-1);
  const most =
    last === undefined ? compressedSize : last.output + MAX_EXPANSION * (compressedSize - spanStart(last));
  if (uncompressedSize > most) refuseZtoc('its tar is larger than its layer can make it');
}

/** The entries in tar order, each behind a header of its own, and none behind the end of the tar. */
function readEntries(root: FlatbufferTable, uncompressedSize: number): TarEntry[] {
  const entries: TarEntry[] = [];
  const times = new Map<string, Timestamp>();
  // Twice what a tar may have: here, the map of a sparse file is a record as well.
  const metadata = new MetadataBudget(2 * TAR_LIMITS.metadata);
  let end = 0;
  for (const table of root.table(ZtocField.toc)?.tables(0) ?? []) {
    if (entries.length === TAR_LIMITS.entries) refuseZtoc(`it has more than ${TAR_LIMITS.entries} entries`);
    const entry = readEntry(table, times, metadata);
    const { name, linkname, offset, size } = entry;
    if (offset % BLOCK_SIZE !== 0 || size < 0 || offset < end + padding(end) + BLOCK_SIZE)
      refuseZtoc('its entries overlap');
    end = offset + size;
    if (end > uncompressedSize) refuseZtoc('an entry lies behind the end of the tar');
    if (name.includes('\0') || linkname.includes('\0')) refuseZtoc('a name has a NUL in it');
    if (Math.max(name.length, linkname.length) > TAR_LIMITS.name)
      refuseZtoc(`a name is longer than ${TAR_LIMITS.name} bytes`);
    take(metadata, name.length + linkname.length + (entry.sparse?.segments.length ?? 0) * SEGMENT_COST);
    entries.push(entry);
  }
  return entries;
}

function take(metadata: MetadataBudget, bytes: number): void {
  if (!metadata.take(bytes))
    refuseZtoc(`its names and attributes take more than ${TAR_LIMITS.metadata} bytes`);
}

interface Spans {
  readonly compression: Ztoc['compression'];
  readonly spanSize: number;
  readonly checkpoints: readonly Checkpoint[];
  readonly spans: number;
}

function readSpans(info: FlatbufferTable, compressedSize: number): Spans {
  const algorithm = info.int8(InfoField.algorithm, GZIP);
  const blob = info.bytes(InfoField.checkpoints);
  if (algorithm === GZIP) {
    const { spanSize, checkpoints } = decodeCheckpoints(blob, compressedSize);
    return { compression: 'gzip', spanSize, checkpoints, spans: checkpoints.length };
  }
  if (algorithm !== UNCOMPRESSED) refuseZtoc(`its compression algorithm ${algorithm} is not known`);
  const tar = new FlatbufferReader(blob).root;
  const spanSize = tar.int64(TarInfoField.spanSize);
  if (spanSize < 1) refuseZtoc('its span size is out of range');
  if (tar.int64(TarInfoField.size) !== compressedSize) refuseZtoc('it gives two sizes for one tar');
  return {
    compression: 'uncompressed',
    spanSize,
    checkpoints: [],
    spans: Math.ceil(compressedSize / spanSize),
  };
}

function readDigests(info: FlatbufferTable): Digest[] {
  const digests: Digest[] = [];
  for (const bytes of info.strings(InfoField.spanDigests)) {
    const digest = Buffer.from(bytes).toString('latin1');
    if (!isDigest(digest)) refuseZtoc('the digest of a span is none');
    digests.push(digest);
  }
  return digests;
}

const NO_RECORDS: ReadonlyMap<string, string> = new Map();

function readEntry(
  table: FlatbufferTable,
  times: Map<string, Timestamp>,
  metadata: MetadataBudget,
): TarEntry {
  const type = table.text(FileField.type);
  if (!isEntryType(type)) refuseZtoc('an entry has a type that is not known');
  let pax = NO_RECORDS;
  for (const record of table.tables(FileField.pax)) {
    if (pax === NO_RECORDS) pax = new Map();
    const key = record.text(0);
    const value = record.text(1);
    take(metadata, key.length + value.length + RECORD_COST);
    (pax as Map<string, string>).set(key, value);
  }
  const size = table.int64(FileField.size);
  return {
    name: table.text(FileField.name),
    type,
    linkname: table.text(FileField.linkname),
    offset: table.int64(FileField.offset),
    size,
    sparse: type === 'reg' ? readSparse(pax, size) : undefined,
    mode: table.int64(FileField.mode),
    uid: table.uint32(FileField.uid),
    gid: table.uint32(FileField.gid),
    uname: table.text(FileField.uname),
    gname: table.text(FileField.gname),
    mtime: readTime(table.text(FileField.mtime), pax, times),
    devmajor: table.int64(FileField.devmajor),
    devminor: table.int64(FileField.devminor),
    pax,
  };
}

/** @param times those met before: most files of a layer share theirs with others */
function readTime(text: string, pax: ReadonlyMap<string, string>, times: Map<string, Timestamp>): Timestamp {
  const met = times.get(text);
  if (met !== undefined) return met;
  const time = text === '' ? parsePaxTime(pax.get('mtime') ?? '') : parseTimestamp(text);
  if (time === undefined) refuseZtoc('a modification time is none');
  if (text !== '') times.set(text, time);
  return time;
}

function readSparse(pax: ReadonlyMap<string, string>, stored: number): SparseMap | undefined {
  const format = sparseFormat((key) => pax.get(key));
  if (format === undefined) return undefined;
  // SOCI itself keeps no map of version 1.0, and for others the size without holes: it cannot read them either.
  const map = pax.get('GNU.sparse.map');
  const size = parseDecimal(pax.get('GNU.sparse.realsize') ?? '');
  if (map === undefined || size === undefined) refuseZtoc('a sparse file has no map');
  const segments = parseSparseMap(map, TAR_LIMITS.segments);
  if (typeof segments === 'string') refuseZtoc(segments);
  const problem = sparseMapProblem({ size, segments }, stored);
  if (problem !== undefined) refuseZtoc(problem);
  return { size, segments };
}
