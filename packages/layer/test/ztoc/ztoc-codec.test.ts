import { expect } from 'chai';
import fc from 'fast-check';
import { digestOf, isLayercacheError } from '@layercache/oci';
import { WINDOW_SIZE } from '../../src/deflate/checkpoint.js';
import type { TarEntry } from '../../src/tar/entry.js';
import { encodeCheckpoints } from '../../src/ztoc/checkpoint-blob.js';
import { formatTimestamp, parseTimestamp } from '../../src/ztoc/timestamp.js';
import type { Ztoc } from '../../src/ztoc/ztoc.js';
import { decodeZtoc, encodeZtoc } from '../../src/ztoc/ztoc-codec.js';

function makeEntry(changes: Partial<TarEntry> = {}): TarEntry {
  return {
    name: 'etc/hosts',
    type: 'reg',
    linkname: '',
    offset: 512,
    size: 100,
    sparse: undefined,
    mode: 0o644,
    uid: 1,
    gid: 4_294_967_294,
    uname: 'root',
    gname: '',
    mtime: { seconds: 1_700_000_000, nanoseconds: 120_000_000 },
    devmajor: 0,
    devminor: 0,
    pax: new Map([['SCHILY.xattr.user.bin', '\udcff\udc80x']]),
    ...changes,
  };
}

function makeZtoc(changes: Partial<Ztoc> = {}): Ztoc {
  return {
    builder: 'layercache',
    compression: 'gzip',
    compressedSize: 5000,
    uncompressedSize: 10_000,
    spanSize: 4096,
    checkpoints: [
      { input: 10, bits: 0, output: 0, window: Buffer.alloc(WINDOW_SIZE) },
      { input: 3000, bits: 5, output: 5000, window: Buffer.alloc(WINDOW_SIZE, 'w') },
    ],
    spanDigests: [digestOf('a'), digestOf('b')],
    entries: [makeEntry(), makeEntry({ name: 'b', type: 'dir', size: 0, offset: 1536, pax: new Map() })],
    ...changes,
  };
}

describe('the zTOC codec', () => {
  it('reads back what it wrote', () => {
    const ztoc = makeZtoc();
    expect(decodeZtoc(encodeZtoc(ztoc))).to.deep.equal(ztoc);
  });

  it('reads back any entry', () => {
    const text = fc.string({ unit: 'binary', maxLength: 12 });
    const name = text.map((any) => any.replaceAll('\0', 'x'));
    fc.assert(
      fc.property(
        fc.record({
          name,
          type: fc.constantFrom<TarEntry['type']>(
            'reg',
            'dir',
            'symlink',
            'hardlink',
            'char',
            'block',
            'fifo',
          ),
          linkname: name,
          mode: fc.integer({ min: 0, max: 0o7777 }),
          uid: fc.integer({ min: 0, max: 0xffff_ffff }),
          mtime: fc.record({
            seconds: fc.integer({ min: -62_000_000_000, max: 250_000_000_000 }),
            nanoseconds: fc.integer({ min: 0, max: 999_999_999 }),
          }),
          devminor: fc.maxSafeNat(),
          pax: fc.array(fc.tuple(text, text), { maxLength: 3 }).map((records) => new Map(records)),
        }),
        (changes) => {
          const ztoc = makeZtoc({ entries: [makeEntry(changes)] });
          const read = decodeZtoc(encodeZtoc(ztoc));
          expect(read.entries[0]!.pax.size).to.equal(changes.pax.size);
          expect(read.entries).to.deep.equal(ztoc.entries);
        },
      ),
      { numRuns: 100 },
    );
  });

  it('keeps plain tars by their span size', () => {
    const plain: Partial<Ztoc> = {
      compression: 'uncompressed',
      compressedSize: 12_000,
      spanSize: 6000,
      checkpoints: [],
    };
    expect(decodeZtoc(encodeZtoc(makeZtoc(plain)))).to.deep.equal(makeZtoc(plain));
    const empty = makeZtoc({
      ...plain,
      compressedSize: 0,
      uncompressedSize: 0,
      entries: [],
      spanDigests: [],
    });
    expect(decodeZtoc(encodeZtoc(empty))).to.deep.equal(empty);
  });

  it('keeps sparse files and times that the format has no place for', () => {
    const sparse = { size: 4000, segments: [{ offset: 40, size: 100 }] };
    const mtime = { seconds: 2 ** 44, nanoseconds: 5 };
    const early = { seconds: -(2 ** 44) - 1, nanoseconds: 5 };
    for (const time of [mtime, early]) {
      const read = decodeZtoc(encodeZtoc(makeZtoc({ entries: [makeEntry({ sparse, mtime: time })] })));
      expect(read.entries[0]).to.deep.include({ sparse, mtime: time });
    }
  });

  it('writes the same bytes for the same index, whatever the order of records', () => {
    const one = new Map([
      ['a', '1'],
      ['b', '2'],
    ]);
    const two = new Map([...one].reverse());
    expect(encodeZtoc(makeZtoc({ entries: [makeEntry({ pax: one })] }))).to.deep.equal(
      encodeZtoc(makeZtoc({ entries: [makeEntry({ pax: two })] })),
    );
  });

  it('reads the first version of checkpoints, which leaves out the first', () => {
    const ztoc = makeZtoc();
    const blob = encodeCheckpoints(ztoc);
    const bytes = Buffer.from(encodeZtoc(ztoc));
    const at = bytes.indexOf(blob);
    // The same vector, shorter by one checkpoint: what was the first is overwritten by the second.
    const size = WINDOW_SIZE + 17;
    blob.copy(bytes, at + 12, 12 + size);
    bytes.writeUInt32LE(blob.length - size, at - 4);
    expect(decodeZtoc(bytes).checkpoints).to.deep.equal(ztoc.checkpoints);
  });

  const [first, second] = makeZtoc().checkpoints;
  const entries = makeZtoc().entries;
  const lies: Readonly<Record<string, Partial<Ztoc>>> = {
    'overlapping entries': { entries: [...entries, makeEntry({ offset: 512 })] },
    'an entry behind the end': { entries: [makeEntry({ offset: 9901 })] },
    'a negative size': { entries: [makeEntry({ size: -1 })] },
    'a negative offset': { entries: [makeEntry({ offset: -512 })] },
    'an unknown type': { entries: [makeEntry({ type: 'socket' as TarEntry['type'] })] },
    'checkpoints out of order': { checkpoints: [second!, first!] },
    'a checkpoint behind the end': { checkpoints: [first!, { ...second!, input: 5001 }] },
    'a checkpoint before the data': { checkpoints: [{ ...first!, input: 9 }, second!] },
    'a checkpoint with 9 bits': { checkpoints: [first!, { ...second!, bits: 9 }] },
    'no checkpoints': { checkpoints: [], spanDigests: [] },
    'a digest too many': { spanDigests: [...makeZtoc().spanDigests, digestOf('c')] },
    'a digest that is none': { spanDigests: [digestOf('a'), 'sha256:no'] },
    'two checkpoints at one place in the tar': { checkpoints: [first!, { ...second!, output: 0 }] },
    'two checkpoints at one place in the layer': { checkpoints: [first!, { ...second!, input: 10 }] },
    'a checkpoint after more output than deflate can make': {
      checkpoints: [first!, { ...second!, output: 1032 * 2990 + 1 }],
    },
    'an offset that no number can hold': { checkpoints: [first!, { ...second!, output: 2 ** 53 }] },
    'more checkpoints than its layer has room for': {
      compressedSize: 7000,
      checkpoints: [first!, second!, { ...second!, input: 3010, output: 6000 }],
      spanDigests: [digestOf('a'), digestOf('b'), digestOf('c')],
    },
    'a tar that is larger than deflate can make it': { uncompressedSize: 5000 + 1032 * 2001 + 1 },
    'a plain tar that is larger than itself': {
      compression: 'uncompressed',
      compressedSize: 8192,
      checkpoints: [],
    },
    'a name with a NUL': { entries: [makeEntry({ name: 'a\0b' })] },
    'a target with a NUL': { entries: [makeEntry({ type: 'symlink', linkname: 'a\0b', size: 0 })] },
    'a name that is longer than any': { entries: [makeEntry({ name: 'n'.repeat((64 << 10) + 1) })] },
    'an entry between two blocks': { entries: [makeEntry({ offset: 600 })] },
    'an entry without room for its header': { entries: [makeEntry(), makeEntry({ offset: 1024 })] },
    'entries that share their place': { entries: [makeEntry({ size: 0 }), makeEntry({ size: 0 })] },
    'a negative span': { spanSize: -1 },
    'a negative archive': { compressedSize: -1 },
    'no span of a plain tar': { compression: 'uncompressed', spanSize: 0 },
    'a sparse map too short': {
      entries: [makeEntry({ sparse: { size: 9, segments: [{ offset: 0, size: 9 }] } })],
    },
    'a sparse map out of order': {
      entries: [
        makeEntry({
          pax: new Map([
            ['GNU.sparse.map', '50,50,0,50'],
            ['GNU.sparse.realsize', '100'],
          ]),
        }),
      ],
    },
    'a sparse map that is none': { entries: [makeEntry({ pax: new Map([['GNU.sparse.map', 'x']]) })] },
  };
  for (const [lie, changes] of Object.entries(lies)) {
    it(`refuses ${lie}`, () => {
      expect(() => decodeZtoc(encodeZtoc(makeZtoc(changes)))).to.throw(
        /the layer index \(zTOC\) is not valid/,
      );
    });
  }

  it('refuses another version', () => {
    const bytes = Buffer.from(encodeZtoc(makeZtoc()));
    bytes.write('1.0', bytes.indexOf('0.9'));
    expect(() => decodeZtoc(bytes)).to.throw(/version is "1.0", not 0.9/);
  });

  it('never fails in another way on damaged bytes', () => {
    const bytes = encodeZtoc(makeZtoc());
    // The windows are left out: any bytes will do there.
    const table = bytes.length - 2 * WINDOW_SIZE;
    const at = fc.oneof(
      fc.integer({ min: 0, max: 400 }),
      fc.integer({ min: bytes.length - table + 500, max: bytes.length - 1 }),
    );
    fc.assert(
      fc.property(
        fc.array(fc.tuple(at, fc.integer({ min: 0, max: 255 })), { minLength: 1, maxLength: 4 }),
        (edits) => {
          const damaged = Buffer.from(bytes);
          for (const [where, value] of edits) damaged[where] = value;
          try {
            decodeZtoc(damaged);
          } catch (error) {
            expect(isLayercacheError(error, 'DOCUMENT_INVALID'), String(error)).to.equal(true);
          }
        },
      ),
      { numRuns: 400 },
    );
  });

  it('refuses bytes that are cut off, wherever', () => {
    const bytes = encodeZtoc(makeZtoc());
    for (let length = 0; length < bytes.length; length += 1009) {
      expect(() => decodeZtoc(bytes.subarray(0, length))).to.throw(/zTOC/);
    }
  });

  it('does not let shared parts stand for more than there is', () => {
    const names = {
      name: 'n'.repeat(60_000),
      linkname: 'other link',
      uname: 'other user',
      gname: 'other group',
    };
    const bytes = Buffer.from(encodeZtoc(makeZtoc({ entries: [makeEntry(names)] })));
    const [name, ...others] = Object.values(names).map((text) => bytes.indexOf(text) - 4);
    const slots = Array.from({ length: (bytes.length >>> 2) - 1 }, (_, index) => index * 4);
    const redirected = slots.filter((at) => others.includes(at + bytes.readUInt32LE(at)));
    expect(redirected).to.have.length(3);
    for (const at of redirected) bytes.writeUInt32LE(name! - at, at);
    expect(() => decodeZtoc(bytes)).to.throw(/its parts overlap/);
  });
});

describe('timestamps', () => {
  it('are written as Go writes them', () => {
    expect(formatTimestamp({ seconds: 0, nanoseconds: 0 })).to.equal('1970-01-01T00:00:00Z');
    expect(formatTimestamp({ seconds: -1, nanoseconds: 500_000_000 })).to.equal('1969-12-31T23:59:59.5Z');
    expect(formatTimestamp({ seconds: 1_350_244_992, nanoseconds: 23_960_108 })).to.equal(
      '2012-10-14T20:03:12.023960108Z',
    );
    expect(formatTimestamp({ seconds: 2 ** 44, nanoseconds: 0 })).to.equal('');
  });

  it('are read with any zone', () => {
    expect(parseTimestamp('1970-01-01T02:00:00.25+01:30')).to.deep.equal({
      seconds: 1800,
      nanoseconds: 250_000_000,
    });
    expect(parseTimestamp('1970-13-01T02:00:00Z')).to.equal(undefined);
    expect(parseTimestamp('yesterday')).to.equal(undefined);
  });
});
