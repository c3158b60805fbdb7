import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Annotation, MediaType, isLayercacheError } from '@layercache/oci';
import { compareEntries, type Entry } from '../../src/entry.js';
import { nodeFileSystem } from '../../src/file-system.js';
import { canonicalJson, emptyHead, indexText, parseIndexDocument } from '../../src/index-document.js';
import {
  JOURNAL_HEADER,
  decodeChanges,
  decodeJournalHeader,
  encodeChanges,
  encodeJournalHeader,
  frameRecord,
} from '../../src/journal-format.js';
import { FilePages } from '../../src/map-file.js';
import { MapEncoder, MapInvalid, PAGE, decodeHeader, mapSize, sealPage } from '../../src/map-format.js';
import { MapReader } from '../../src/map-reader.js';
import { decodeEntry, encodeEntry } from '../../src/record.js';
import { folderSize } from '../../src/space/folder-size.js';
import { Ledger } from '../../src/space/ledger.js';
import { digestNumber, inScratch, layerPair, manifestNamed } from '../scratch.js';
import { mutate, randomNumbers } from './mutate.js';

const SALT = 0x5a17;
const FRAME = 12;

const entries: readonly Entry[] = [
  { descriptor: layerPair(1).gzip, proven: true },
  { descriptor: layerPair(1).tar, proven: false },
  { descriptor: manifestNamed('library/app:1'), proven: false },
  {
    descriptor: {
      mediaType: 'application/x.future+new',
      digest: `sha512:${'5a'.repeat(64)}`,
      size: 2 ** 40,
      annotations: {
        [Annotation.digest]: `${digestNumber('a')},${digestNumber('b')}`,
        [Annotation.diffID]: digestNumber('c'),
        note: 'é\u0000LCR',
      },
      platform: { os: 'linux', architecture: 'amd64' },
      urls: ['https://example.com/a'],
      future: [{ deep: [1, null] }],
    },
    proven: false,
  },
  {
    descriptor: {
      mediaType: MediaType.octetStream,
      digest: digestNumber('long'),
      size: 3,
      data: 'x'.repeat(6000),
    },
    proven: false,
  },
];
const samples = [...entries].sort(compareEntries);

/** Bytes of one format, and a check that throws when what they are decoded to, or how that fails, is wrong. */
interface Decoder {
  readonly bytes: Buffer;
  /** Makes the checksums right again, so that what lies behind them is reached. */
  readonly seal?: (bytes: Buffer) => Buffer;
  readonly check: (bytes: Buffer) => void | Promise<void>;
}

/** What was decoded can be written again, as a commit does. */
function rewrite(entry: Entry): void {
  if (decodeEntry(encodeEntry(entry), 0).descriptor.digest !== entry.descriptor.digest) {
    throw new Error(`${entry.descriptor.digest} is another digest when it is read again`);
  }
  JSON.parse(canonicalJson(entry.descriptor));
}

function checkRecord(bytes: Buffer): void {
  let entry: Entry;
  try {
    entry = decodeEntry(bytes, 0);
  } catch (error) {
    if (error instanceof RangeError) return;
    throw error;
  }
  rewrite(entry);
}

function checkJournal(bytes: Buffer): void {
  decodeJournalHeader(bytes);
  const { changes, end, torn } = decodeChanges(bytes.subarray(JOURNAL_HEADER), SALT);
  if (torn > end || end > bytes.length) throw new Error(`${torn} bytes torn, ${end} read`);
  for (const change of changes) if (change.type === 'put') rewrite(change.entry);
  decodeChanges(encodeChanges(changes, SALT), SALT);
}

function sealJournal(bytes: Buffer): Buffer {
  for (let at = JOURNAL_HEADER; at + FRAME <= bytes.length;) {
    const end = Math.min(bytes.length, at + FRAME + bytes.readUInt32LE(at + 4));
    frameRecord(bytes.subarray(at + FRAME, end), SALT).copy(bytes, at);
    at = end;
  }
  return bytes;
}

function mapBytes(): Buffer {
  const encoder = new MapEncoder(7);
  for (const entry of samples) encoder.add(entry);
  const { pages, header } = encoder.finish(emptyHead, {
    index: { ino: 1n, size: 2n, mtimeNs: 3n },
    indexDigest: digestNumber('index'),
    foreign: false,
  });
  return Buffer.concat([header, ...pages]);
}

function checkMap(bytes: Buffer): void {
  const files = {
    ...nodeFileSystem,
    readSync: (_fd: number, to: Uint8Array, offset: number, length: number, position: number): number =>
      bytes.copy(to, offset, position, Math.min(bytes.length, position + length)),
  };
  try {
    if (bytes.length < PAGE) throw new MapInvalid('cut short');
    const header = decodeHeader(bytes.subarray(0, PAGE));
    if (mapSize(header) !== bytes.length) throw new MapInvalid('of another size');
    const reader = new MapReader(header, new FilePages(files, 0, bytes.length / PAGE));
    canonicalJson(reader.head());
    for (const { descriptor } of samples) {
      for (const found of reader.lookup(descriptor.digest)) rewrite(found);
    }
    reader.tagged('library/app:1');
    for (const entry of reader.all()) rewrite(entry);
  } catch (error) {
    if (!(error instanceof MapInvalid)) throw error;
  }
}

function sealMap(bytes: Buffer): Buffer {
  for (let number = 0; (number + 1) * PAGE <= bytes.length; number++) {
    sealPage(bytes.subarray(number * PAGE, (number + 1) * PAGE), number, 7);
  }
  return bytes;
}

function checkIndex(bytes: Buffer): void {
  try {
    const { head, manifests } = parseIndexDocument(bytes, 'index.json');
    const entries = manifests.map((descriptor): Entry => ({ descriptor, proven: false }));
    parseIndexDocument(Buffer.from([...indexText(head, entries)].join('')), 'index.json');
    for (const entry of entries) rewrite(entry);
  } catch (error) {
    if (!isLayercacheError(error, 'LAYOUT_INVALID')) throw error;
  }
}

/** A ledger whose handles are all gone is counted anew, whatever it says. */
async function checkLedger(dir: string, bytes: Buffer): Promise<void> {
  writeFileSync(join(dir, '.layercache/space/ledger'), bytes);
  const ledger = await Ledger.join(nodeFileSystem, dir, 1000);
  const { counted, held } = await ledger.locked(() => ({
    counted: ledger.total,
    held: ledger.others().credit,
  }));
  await ledger.leave(0);
  if (held !== 0) throw new Error(`${held} bytes are held by nobody`);
  const real = folderSize(nodeFileSystem, dir);
  if (counted !== real) throw new Error(`the ledger says ${counted} bytes, and there are ${real}`);
}

const decoders: Readonly<Record<string, Decoder>> = {
  'entry records': {
    bytes: encodeEntry(samples[0] ?? { descriptor: layerPair(1).gzip, proven: false }),
    check: checkRecord,
  },
  'entry records with other fields': {
    bytes: Buffer.concat(
      samples.filter(({ descriptor }) => descriptor.future !== undefined).map(encodeEntry),
    ),
    check: checkRecord,
  },
  journals: {
    bytes: Buffer.concat([
      encodeJournalHeader({ generation: 7, salt: SALT }),
      encodeChanges([{ type: 'untag', name: 'app' }, { type: 'superseded' }], SALT),
      ...samples.slice(0, 3).map((entry) => encodeChanges([{ type: 'put', entry }], SALT)),
      encodeChanges([{ type: 'remove', digest: digestNumber(1) }], SALT),
    ]),
    seal: sealJournal,
    check: checkJournal,
  },
  maps: { bytes: mapBytes(), seal: sealMap, check: checkMap },
  'index.json': { bytes: Buffer.from([...indexText(emptyHead, samples)].join('')), check: checkIndex },
};

export const FORMATS: readonly string[] = [...Object.keys(decoders), 'ledgers'];

/** Decodes mutated bytes of a format, and throws an error that says how to see it again when one is not taken well. */
export async function fuzz(format: string, count: number, firstSeed: number): Promise<void> {
  await inScratch(async (dir) => {
    mkdirSync(join(dir, '.layercache/space'), { recursive: true });
    const decoder = decoders[format] ?? {
      bytes: Buffer.alloc(4096, 'PSCL\0\0\0\0'),
      check: (bytes: Buffer) => checkLedger(dir, bytes),
    };
    for (let seed = firstSeed; seed < firstSeed + count; seed++) {
      const random = randomNumbers(seed);
      const mutated = mutate(decoder.bytes, random);
      const bytes = decoder.seal === undefined || random(4) === 0 ? mutated : decoder.seal(mutated);
      try {
        await decoder.check(bytes);
      } catch (cause) {
        throw new Error(`${format}, seed ${seed}: ${bytes.toString('hex').slice(0, 4000)}`, { cause });
      }
    }
  });
}
