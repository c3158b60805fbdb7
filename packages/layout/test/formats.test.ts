import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from 'chai';
import fc from 'fast-check';
import { Annotation, MediaType, refName, type Descriptor, type Digest } from '@layercache/oci';
import { compareEntries, lookupKeys, type Entry } from '../src/entry.js';
import { emptyHead, canonicalJson, indexText } from '../src/index-document.js';
import {
  decodeChanges,
  decodeJournalHeader,
  encodeChanges,
  encodeJournalHeader,
  frameRecord,
  type Change,
} from '../src/journal-format.js';
import { MapEncoder, MapInvalid, PAGE, checkPage, decodeHeader, mapSize } from '../src/map-format.js';
import { MapReader, MemoryPages } from '../src/map-reader.js';
import { FilePages } from '../src/map-file.js';
import { nodeFileSystem } from '../src/file-system.js';
import { decodeEntry, encodeEntry } from '../src/record.js';
import { digestNumber, inScratch, layerPair } from './scratch.js';

const hex = (length: number): fc.Arbitrary<string> =>
  fc.uint8Array({ minLength: length, maxLength: length }).map((bytes) => Buffer.from(bytes).toString('hex'));
const digest: fc.Arbitrary<Digest> = fc.oneof(
  { weight: 5, arbitrary: hex(32).map((text): Digest => `sha256:${text}`) },
  hex(64).map((text): Digest => `sha512:${text}`),
);
const annotations = fc.record(
  {
    [Annotation.diffID]: fc.oneof(digest, fc.string()),
    [Annotation.digest]: fc.oneof(fc.array(digest, { minLength: 1, maxLength: 3 }).map(String), fc.string()),
    [Annotation.refName]: fc.string({ minLength: 1 }),
    other: fc.string({ unit: 'binary' }),
  },
  { requiredKeys: [] },
);
const descriptor: fc.Arbitrary<Descriptor> = fc
  .record(
    {
      mediaType: fc.oneof(
        fc.constantFrom(...Object.values(MediaType)),
        fc.constant('application/x.future+new'),
      ),
      digest,
      size: fc.oneof(fc.nat(), fc.maxSafeNat()),
      annotations: annotations.filter((value) => Object.keys(value).length > 0),
      data: fc.base64String(),
      future: fc.jsonValue(),
    },
    { requiredKeys: ['mediaType', 'digest', 'size'] },
  )
  .map((value) => JSON.parse(JSON.stringify(value)) as Descriptor);
const entry: fc.Arbitrary<Entry> = fc.record({ descriptor, proven: fc.boolean() });

function mapOf(entries: readonly Entry[]): { reader: MapReader; bytes: Buffer } {
  const encoder = new MapEncoder(7);
  for (const one of [...entries].sort(compareEntries)) encoder.add(one);
  const source = {
    index: { ino: 1n, size: 2n, mtimeNs: 1_700_000_000_123_456_789n },
    indexDigest: digestNumber('index'),
    foreign: false,
  };
  const { pages, header } = encoder.finish(emptyHead, source);
  const bytes = Buffer.concat([header, ...pages]);
  const decoded = decodeHeader(header);
  expect(decoded).to.include({ ...source, index: decoded.index, generation: 7 });
  expect(decoded.index).to.deep.equal(source.index);
  expect(mapSize(decoded)).to.equal(bytes.length);
  return { reader: new MapReader(decoded, new MemoryPages(bytes)), bytes };
}

describe('an entry record', () => {
  it('gives back every descriptor as it was', () => {
    fc.assert(
      fc.property(entry, fc.nat(20), (one, offset) => {
        const bytes = Buffer.concat([Buffer.alloc(offset, 0xee), encodeEntry(one), Buffer.alloc(3, 0xee)]);
        expect(decodeEntry(bytes, offset)).to.deep.equal(one);
      }),
    );
  });

  it('takes about a hundred bytes for a layer', () => {
    const layer = {
      mediaType: MediaType.layerGzip,
      digest: digestNumber(1),
      size: 28_565_893,
      annotations: { [Annotation.diffID]: digestNumber(2) },
    };
    expect(encodeEntry({ descriptor: layer, proven: true })).to.have.length(70);
  });

  it('is refused when it is cut short', () => {
    const bytes = encodeEntry({
      descriptor: { mediaType: 'a/b', digest: digestNumber(1), size: 1 },
      proven: false,
    });
    for (let length = 0; length < bytes.length; length++) {
      expect(() => decodeEntry(bytes.subarray(0, length), 0)).to.throw(RangeError);
    }
  });
});

describe('the index map', () => {
  it('finds every entry by each of its keys and names, and nothing else', () => {
    fc.assert(
      fc.property(fc.array(entry, { maxLength: 60 }), digest, (entries, unknown) => {
        const unique = [...new Map(entries.map((one) => [one.descriptor.digest, one])).values()].sort(
          compareEntries,
        );
        const { reader } = mapOf(unique);
        expect([...reader.all()]).to.deep.equal(unique);
        expect(reader.head()).to.deep.equal(emptyHead);
        for (const one of unique) {
          expect(reader.of(one.descriptor.digest)).to.deep.equal([one]);
          for (const key of lookupKeys(one.descriptor)) {
            const expected = unique.filter((other) => lookupKeys(other.descriptor).includes(key));
            expect(reader.lookup(key)).to.deep.equal(expected);
          }
          const name = refName(one.descriptor);
          if (name !== undefined) expect(refName(reader.tagged(name)!.descriptor)).to.equal(name);
        }
        expect(reader.lookup(unknown)).to.deep.equal(
          unique.filter((one) => lookupKeys(one.descriptor).includes(unknown)),
        );
        expect(reader.tagged('\0 no such name')).to.equal(undefined);
      }),
    );
  });

  it('holds many entries, records larger than a page, and keys that begin alike', () => {
    const entries = Array.from({ length: 400 }, (_, n): Entry => {
      const close = `sha256:00000000${n.toString(16).padStart(56, '0')}` as const;
      const note = n % 80 === 0 ? 'x'.repeat(n * 30 + 4000) : 'y';
      const shared = { [Annotation.diffID]: digestNumber('shared'), note };
      return {
        descriptor: { mediaType: MediaType.layerGzip, digest: close, size: n, annotations: shared },
        proven: n % 2 === 0,
      };
    });
    const { reader } = mapOf(entries);
    expect([...reader.all()]).to.deep.equal(entries);
    for (const one of entries) expect(reader.lookup(one.descriptor.digest)).to.deep.equal([one]);
    expect(reader.lookup(digestNumber('shared'))).to.have.length(400);
    expect(reader.lookup(digestNumber('other'))).to.deep.equal([]);
  });

  it('is read from a file through fewer pages than it has', async () => {
    const entries = Array.from({ length: 500 }, (_, n): Entry => {
      const { gzip } = layerPair(n);
      return { descriptor: n % 50 === 0 ? { ...gzip, data: 'x'.repeat(9000) } : gzip, proven: false };
    });
    const { bytes, reader } = mapOf(entries);
    await inScratch(async (dir) => {
      const path = join(dir, 'map');
      writeFileSync(path, bytes);
      const fd = nodeFileSystem.openSync(path, 'r');
      for (const places of [1, 2, 5]) {
        const small = new MapReader(
          reader.header,
          new FilePages(nodeFileSystem, fd, bytes.length / PAGE, places),
        );
        for (const one of entries) {
          expect(small.lookup(one.descriptor.digest)).to.deep.equal([one]);
          expect(small.lookup(one.descriptor.annotations![Annotation.diffID] as Digest)).to.deep.equal([one]);
        }
        expect([...small.all()]).to.have.length(500);
      }
      nodeFileSystem.closeSync(fd);
      await Promise.resolve();
    });
  });

  it('notices a bit that flipped in any page', () => {
    const { bytes } = mapOf(
      Array.from({ length: 100 }, (_, n) => ({
        descriptor: { mediaType: 'a/b', digest: digestNumber(n), size: n },
        proven: false,
      })),
    );
    for (let at = 5; at < bytes.length; at += 977) {
      const damaged = Buffer.from(bytes);
      damaged[at]! ^= 4;
      const number = Math.floor(at / PAGE);
      const page = damaged.subarray(number * PAGE, (number + 1) * PAGE);
      expect(() => {
        checkPage(page, number);
      }).to.throw(MapInvalid);
    }
    expect(() => {
      checkPage(bytes.subarray(PAGE, 2 * PAGE), 2);
    }).to.throw(MapInvalid);
    const later = Buffer.from(bytes.subarray(0, PAGE));
    later.writeUInt16LE(2, 6);
    expect(() => decodeHeader(later)).to.throw(MapInvalid);
  });
});

describe('the journal format', () => {
  const change: fc.Arbitrary<Change> = fc.oneof(
    entry.map((one): Change => ({ type: 'put', entry: one })),
    digest.map((one): Change => ({ type: 'remove', digest: one })),
    fc.string({ minLength: 1 }).map((name): Change => ({ type: 'untag', name })),
    fc.constant<Change>({ type: 'superseded' }),
  );
  const batches = fc.array(fc.array(change, { minLength: 1, maxLength: 4 }), { maxLength: 6 });
  const salt = 12345;

  it('gives back the changes, in order', () => {
    fc.assert(
      fc.property(batches, (records) => {
        const bytes = Buffer.concat(records.map((changes) => encodeChanges(changes, salt)));
        expect(decodeChanges(bytes, salt)).to.deep.equal({
          changes: records.flat(),
          end: bytes.length,
          torn: 0,
          unknown: [],
        });
      }),
    );
  });

  it('drops a record that was torn, wherever, and no other', () => {
    fc.assert(
      fc.property(
        batches,
        fc.array(change, { minLength: 1, maxLength: 3 }),
        batches,
        fc.nat(),
        (before, torn, after, cut) => {
          const whole = encodeChanges(torn, salt);
          const part = whole.subarray(0, cut % whole.length);
          const encode = (records: Change[][]): Buffer =>
            Buffer.concat(records.map((changes) => encodeChanges(changes, salt)));
          const { changes } = decodeChanges(Buffer.concat([encode(before), part, encode(after)]), salt);
          expect(changes).to.deep.equal([...before, ...after].flat());
        },
      ),
    );
  });

  it('drops a torn record whose missing byte is the one that the next record begins with', () => {
    const digest = `sha256:${'0'.repeat(64)}` as const;
    const torn = encodeChanges([{ type: 'remove', digest }], salt).subarray(0, -1);
    const next: Change[] = [{ type: 'untag', name: 'app:1' }];
    expect(decodeChanges(Buffer.concat([torn, encodeChanges(next, salt)]), salt).changes).to.deep.equal(next);
  });

  it('takes any bytes inside a whole record for data, also those that mark a record', () => {
    const ends = ['004c4352', '004c43520000', '004c4352ffffffff', '004c435201000000', '00'.repeat(3)];
    fc.assert(
      fc.property(
        fc.array(fc.constantFrom(...ends), { minLength: 1, maxLength: 5 }),
        fc.nat(),
        (chosen, salt) => {
          const marked = chosen.map((end): Change => {
            return { type: 'remove', digest: `sha256:${'ab'.repeat(32).slice(end.length)}${end}` };
          });
          const bytes = Buffer.concat(marked.map((change) => encodeChanges([change], salt)));
          const decoded = decodeChanges(bytes, salt);
          expect(decoded).to.deep.equal({ changes: marked, end: bytes.length, torn: 0, unknown: [] });
          for (let length = 0; length < bytes.length; length++) {
            const cut = decodeChanges(bytes.subarray(0, length), salt);
            expect(cut.changes).to.deep.equal(marked.slice(0, cut.changes.length));
          }
        },
      ),
    );
  });

  it('skips whole records that a newer version wrote, all of their changes, and keeps their bytes', () => {
    const known: Change = { type: 'untag', name: 'known' };
    const knownPayload = encodeChanges([known], 5).subarray(12);
    const entryOf = (...bytes: number[]): Buffer => {
      const record = Buffer.concat([Buffer.from(bytes), Buffer.alloc(33)]);
      return Buffer.concat([Buffer.of(1, record.length), record]);
    };
    const payloads = {
      'a kind of change': Buffer.concat([knownPayload, Buffer.of(0x7f)]),
      'a number of a media type': entryOf(0, 200),
      'a flag': entryOf(64, 1),
      'an algorithm of a digest': Buffer.concat([Buffer.of(2, 7), Buffer.alloc(32)]),
    };
    for (const [what, payload] of Object.entries(payloads)) {
      const bytes = Buffer.concat([
        encodeChanges([known], 5),
        frameRecord(payload, 5),
        encodeChanges([known], 5),
      ]);
      const decoded = decodeChanges(bytes, 5);
      expect(decoded.changes, what).to.deep.equal([known, known]);
      expect(decoded.unknown, what).to.deep.equal([payload]);
      expect(decoded).to.include({ torn: 0, end: bytes.length });
    }
  });

  it('skips what a newer version adds at the end of an entry', () => {
    const entry = { descriptor: layerPair(1).gzip, proven: true };
    const record = Buffer.concat([encodeEntry(entry), Buffer.from('more')]);
    const payload = Buffer.concat([Buffer.of(1, record.length), record]);
    const { changes } = decodeChanges(frameRecord(payload, 5), 5);
    expect(changes).to.deep.equal([{ type: 'put', entry }]);
  });

  it('takes records of another journal for nothing', () => {
    const bytes = encodeChanges([{ type: 'superseded' }], salt);
    expect(decodeChanges(bytes, salt + 1).changes).to.deep.equal([]);
  });

  it('has a header that says which map it belongs to', () => {
    const header = { generation: 1_700_000_000_000_000, salt };
    const bytes = encodeJournalHeader(header);
    expect(decodeJournalHeader(bytes)).to.deep.equal(header);
    expect(decodeJournalHeader(bytes.subarray(0, 20))).to.equal(undefined);
    bytes[9]! ^= 1;
    expect(decodeJournalHeader(bytes)).to.equal(undefined);
  });
});

describe('canonical JSON', () => {
  it('says the same as JSON, with keys in order', () => {
    fc.assert(
      fc.property(fc.jsonValue(), (value) => {
        expect(JSON.parse(canonicalJson(value))).to.deep.equal(JSON.parse(JSON.stringify(value)));
      }),
    );
    expect(canonicalJson({ b: [1, { d: 1, c: undefined }], a: 'x' })).to.equal('{"a":"x","b":[1,{"d":1}]}');
    expect([...indexText({}, [])].join('')).to.equal('{"manifests":[]}');
  });
});
