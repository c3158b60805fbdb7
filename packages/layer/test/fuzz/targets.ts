import { deepStrictEqual, ok } from 'node:assert';
import { Readable } from 'node:stream';
import { deflateRawSync, gzipSync } from 'node:zlib';
import { CheckpointScan } from '../../src/deflate/scanning.js';
import { indexLayer } from '../../src/index-layer.js';
import { MergedView } from '../../src/merge/merged-view.js';
import { inflateLayer } from '../../src/parallel-decompression.js';
import { readRange } from '../../src/random-access.js';
import type { TarEntry } from '../../src/tar/entry.js';
import { parsePax, parsePaxTime } from '../../src/tar/pax.js';
import {
  OldSparseMap,
  parseSparseMap,
  PaxSparseMap,
  type SparseMapBlocks,
} from '../../src/tar/sparse-map.js';
import { TarReader } from '../../src/tar/tar-reader.js';
import { decodeZtoc, encodeZtoc } from '../../src/ztoc/ztoc-codec.js';
import { formatTimestamp, parseTimestamp } from '../../src/ztoc/timestamp.js';
import type { Ztoc } from '../../src/ztoc/ztoc.js';
import { decompressZstd } from '../../src/zstd/decompress-zstd.js';
import { compressible, gzipVariants } from '../deflate/gzip-streams.js';
import { MemoryLayer } from '../layers.js';
import { entry, gnuLong, paxHeader, paxRecord, tar } from '../tar/tar-builder.js';
import { ZSTD_SAMPLE } from '../zstd/zstd-sample.js';
import type { FuzzTarget } from './fuzz-target.js';
import type { Random, Seed } from './mutate.js';

/** Output of a decoder that is looked at: a few bytes may stand for any number. */
const MOST_OUTPUT = 8 << 20;

const sparse10 = { 'GNU.sparse.major': '1', 'GNU.sparse.minor': '0', 'GNU.sparse.realsize': '2000' };

function oldSparse(isExtended: boolean): Buffer {
  const header = entry({
    name: 'old-sparse',
    type: 'S',
    magic: 'ustar  \0',
    size: 4,
    patch: (block) => {
      block.write('00000000010\0' + '00000000002\0', 386, 'latin1');
      if (isExtended) block[482] = 1;
      else block.write('00000000100\0' + '00000000002\0', 410, 'latin1');
      block.write('00000003720\0', 483, 'latin1');
    },
  });
  const more = Buffer.alloc(512);
  more.write('00000000100\0' + '00000000002\0', 0, 'latin1');
  const data = Buffer.alloc(512, 'abcd'.padEnd(512, '\0'));
  return Buffer.concat([header, ...(isExtended ? [more] : []), data]);
}

/** An archive of everything that the reader knows. */
const archive = tar(
  { name: 'dir/', mode: 0o1777, uid: 7, uname: 'me', gname: 'us' },
  { name: 'dir/file', data: 'content' },
  { name: 'long', data: 'x', pax: { path: 'd/'.repeat(80), mtime: '1350244992.02396', uid: '-2' } },
  { name: 'attributes', pax: { 'SCHILY.xattr.user.b': Buffer.from([0, 255, 10]), comment: 'none' } },
  paxHeader({ comment: 'global' }, 'g'),
  gnuLong('L', `gnu/${'g'.repeat(120)}`),
  gnuLong('K', 'k'.repeat(120)),
  { name: 'x', type: '2', magic: 'ustar  \0' },
  { name: 'hard', type: '1', linkname: 'dir/file' },
  { name: 'null', type: '3', devmajor: 1, devminor: 3 },
  { name: 'big', uid: 3_000_000_000, mtime: 2 ** 40 },
  { name: 'sparse-0', data: 'abcd', pax: { 'GNU.sparse.size': '2000', 'GNU.sparse.map': '0,3,1000,1' } },
  { name: 'sparse-1', data: '2\n0\n3\n1000\n1\n'.padEnd(512, '\0') + 'abcd', pax: sparse10 },
  oldSparse(false),
  oldSparse(true),
  { name: 'dir/.wh.gone' },
  { name: 'last', data: compressible(600) },
);

/** Gives changed headers their right checksums, most of the time. */
function repairHeaders(bytes: Buffer, random: Random): void {
  if (random.below(10) === 0) return;
  for (let at = 0; at + 512 <= bytes.length; at += 512) {
    const block = bytes.subarray(at, at + 512);
    if (block.toString('latin1', 257, 262) !== 'ustar') continue;
    block.fill(0x20, 148, 156);
    const sum = block.reduce((total, byte) => total + byte, 0);
    block.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 'latin1');
  }
}

function* inPortions(bytes: Buffer, random: Random): Generator<Buffer> {
  const size = random.of([1 << 20, 4096, 512, 77]);
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size);
}

function withoutRecords(entries: readonly TarEntry[]): unknown[] {
  return entries.map((each) => ({ ...each, pax: undefined }));
}

/** What the tar reader takes can be merged, and kept as a layer index. */
function readTar(bytes: Buffer, random: Random): void {
  const entries: TarEntry[] = [];
  const reader = new TarReader((each) => entries.push(each));
  for (const portion of inPortions(bytes, random)) reader.push(portion);
  reader.finish();
  ok(entries.length <= bytes.length / 512, 'each entry has a header');
  const ztoc: Ztoc = {
    builder: 'test',
    compression: 'uncompressed',
    compressedSize: bytes.length,
    uncompressedSize: reader.end,
    spanSize: bytes.length + 1,
    checkpoints: [],
    spanDigests: bytes.length === 0 ? [] : [`sha256:${'0'.repeat(64)}`],
    entries,
  };
  deepStrictEqual(withoutRecords(decodeZtoc(encodeZtoc(ztoc)).entries), withoutRecords(entries));
  if (random.below(3) > 0) return;
  const view = MergedView.of([{ diffID: `sha256:${'0'.repeat(64)}`, entries }]);
  for (const { path } of view.nodes()) ok(view.find(path, { keepLink: true }) !== undefined, path);
}

function readRecords(bytes: Buffer): void {
  const records = parsePax(bytes);
  if (typeof records === 'string') return;
  for (const value of records.values()) {
    parsePaxTime(value);
    parseSparseMap(value, 100);
  }
}

function readSparseMap(map: SparseMapBlocks, bytes: Buffer): void {
  for (let at = 0; at + 512 <= bytes.length; at += 512)
    if (map.take(bytes.subarray(at, at + 512), at) !== undefined) return;
}

function blocks(text: string): Seed {
  return { bytes: Buffer.from(text.padEnd(2048, '\0'), 'latin1') };
}

/** Leaves most frames a window of at most 256 KiB: that of a megabyte and more takes its time to make. */
function shrinkWindows(bytes: Buffer, random: Random): void {
  const descriptor = bytes[4] ?? 0;
  if (bytes.length > 5 && (descriptor & 0x20) === 0 && random.below(50) > 0)
    bytes[5] = (bytes[5] ?? 0) & 0x47;
}

async function readOutput(output: AsyncIterable<unknown>): Promise<number> {
  let size = 0;
  for await (const piece of output) {
    size += (piece as Uint8Array).length;
    if (size > MOST_OUTPUT) break;
  }
  return size;
}

function scan(bytes: Buffer, random: Random): void {
  const scanner = new CheckpointScan(1000);
  let checkpoints = 0;
  for (const portion of inPortions(bytes, random))
    checkpoints += scanner.step({ bytes: Uint8Array.from(portion), isLast: false }).starts.length;
  checkpoints += scanner.step({ bytes: new Uint8Array(0), isLast: true }).starts.length;
  ok(checkpoints <= 1 + bytes.length / 4000, 'checkpoints take no more than the layer allows');
}

const layer = gzipSync(archive, { memLevel: 1 });

/** Blocks of every kind that the scanner and zlib know. */
const streams: Seed[] = [
  ...Object.values(gzipVariants(compressible(2500))),
  layer,
  Buffer.concat([
    gzipSync('').subarray(0, 10),
    Buffer.alloc(50, Buffer.from([0, 0, 0, 255, 255])),
    deflateRawSync(archive),
    layer.subarray(-8),
  ]),
].map((bytes) => ({ bytes }));

const indexes = await Promise.all(
  (['tar+gzip', 'tar'] as const).map(async (form): Promise<Seed> => {
    const { ztoc } = await indexLayer([form === 'tar' ? archive : layer], {
      form,
      spanSize: 4000,
      workers: 0,
    });
    const bytes = Buffer.from(encodeZtoc(ztoc));
    const windows = ztoc.checkpoints.map(({ window }) => bytes.indexOf(window));
    const [start] = windows;
    const end = windows.at(-1);
    if (start === undefined || end === undefined) return { bytes };
    return { bytes, dull: { start, end: end + (32 << 10) } };
  }),
);

async function readLayer(bytes: Buffer): Promise<void> {
  const ztoc = decodeZtoc(bytes);
  const form = ztoc.compression === 'gzip' ? layer : archive;
  const indexed = { ztoc, bytes: new MemoryLayer(form) };
  await readOutput(readRange(indexed, 0, ztoc.uncompressedSize));
  await readOutput(inflateLayer(indexed, { concurrency: 1 }));
}

export const targets: readonly FuzzTarget[] = [
  {
    name: 'a zTOC',
    seeds: indexes,
    codes: ['DOCUMENT_INVALID'],
    run: (bytes) => {
      const ztoc = decodeZtoc(bytes);
      deepStrictEqual(decodeZtoc(encodeZtoc(ztoc)).checkpoints, ztoc.checkpoints);
    },
  },
  {
    name: 'a layer by a zTOC',
    seeds: indexes,
    codes: ['DOCUMENT_INVALID', 'COMPRESSION_INVALID', 'DIGEST_MISMATCH', 'UNSUPPORTED'],
    run: readLayer,
  },
  {
    name: 'a tar',
    seeds: [{ bytes: archive }],
    codes: ['ARCHIVE_INVALID'],
    run: readTar,
    repair: repairHeaders,
  },
  {
    name: 'a pax header',
    seeds: [
      {
        bytes: Buffer.concat([
          paxRecord('path', 'a/b'),
          paxRecord('mtime', '-1.5'),
          paxRecord('GNU.sparse.map', '0,3,9,4'),
        ]),
      },
      { bytes: Buffer.from('22 GNU.sparse.size=2000\n23 GNU.sparse.offset=0\n25 GNU.sparse.numbytes=3\n') },
    ],
    codes: [],
    run: readRecords,
  },
  {
    name: 'the sparse map of a pax archive',
    seeds: ['2\n0\n3\n1000\n1\n', `200\n${'10\n'.repeat(400)}`].map(blocks),
    codes: ['ARCHIVE_INVALID'],
    run: (bytes) => {
      readSparseMap(new PaxSparseMap(250, bytes.length), bytes);
    },
  },
  {
    name: 'the sparse map of a GNU archive',
    seeds: ['00000000010\0'.repeat(84), `${'00000000010\0'.repeat(42)}\x01\x00\x08`].map(blocks),
    codes: ['ARCHIVE_INVALID'],
    run: (bytes) => {
      readSparseMap(new OldSparseMap(250), bytes);
    },
  },
  { name: 'a gzip stream, scanned', seeds: streams, codes: ['COMPRESSION_INVALID'], run: scan },
  {
    name: 'a gzip layer, indexed',
    seeds: [{ bytes: layer }],
    codes: ['COMPRESSION_INVALID', 'ARCHIVE_INVALID'],
    share: 0.2,
    run: (bytes) => indexLayer([bytes], { form: 'tar+gzip', workers: 0, spanSize: 1000 }),
  },
  {
    name: 'a zstd stream',
    seeds: ZSTD_SAMPLE.streams.map((bytes) => ({ bytes })),
    codes: ['COMPRESSION_INVALID'],
    run: (bytes, random) => readOutput(decompressZstd(Readable.from(inPortions(bytes, random)))),
    repair: shrinkWindows,
  },
  {
    name: 'a time',
    seeds: ['1970-01-01T02:00:00.25+01:30', '2012-10-14T20:03:12.023960108Z'].map((text) => ({
      bytes: Buffer.from(text),
    })),
    codes: [],
    run: (bytes) => {
      const time = parseTimestamp(bytes.toString('latin1'));
      if (time !== undefined) deepStrictEqual(parseTimestamp(formatTimestamp(time)), time);
    },
  },
];
