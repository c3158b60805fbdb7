import { expect } from 'chai';
import fc from 'fast-check';
import { isLayercacheError } from '@layercache/oci';
import { compareBytes, decodeBytes, encodeBytes } from '../../src/tar/byte-string.js';
import { xattrs, type TarEntry } from '../../src/tar/entry.js';
import { TAR_LIMITS } from '../../src/tar/limits.js';
import { TarReader } from '../../src/tar/tar-reader.js';
import { entry, gnuLong, paxHeader, tar } from './tar-builder.js';

function read(bytes: Uint8Array, chunkSize = bytes.length, limits = TAR_LIMITS): TarEntry[] {
  const entries: TarEntry[] = [];
  const reader = new TarReader((each) => entries.push(each), limits);
  for (let at = 0; at < bytes.length; at += chunkSize) reader.push(bytes.subarray(at, at + chunkSize));
  reader.finish();
  return entries;
}

function only(bytes: Uint8Array): TarEntry {
  const entries = read(bytes);
  expect(entries).to.have.length(1);
  return entries[0]!;
}

describe('the tar reader', () => {
  it('gives every field of an entry, and where its data is', () => {
    const bytes = tar(
      { name: 'etc/', mode: 0o41777, uid: 3, gid: 4, uname: 'root', gname: 'wheel', mtime: 12 },
      { name: 'etc/passwd', data: 'root:x:0:0', mode: 0o4644, prefix: 'a/b' },
      { name: 'dev/null', type: '3', devmajor: 1, devminor: 3 },
      { name: 'link', type: '2', linkname: '../etc/passwd' },
      { name: 'fifo', type: '6' },
      { name: 'hard', type: '1', linkname: 'etc/passwd' },
      { name: 'disk', type: '4', devmajor: 8, devminor: 300 },
    );
    const [dir, file, char, symlink, fifo, hard, block] = read(bytes);
    expect(dir).to.deep.include({
      name: 'etc/',
      type: 'dir',
      mode: 0o41777,
      uid: 3,
      gid: 4,
      uname: 'root',
      size: 0,
    });
    expect(dir!.mtime).to.deep.equal({ seconds: 12, nanoseconds: 0 });
    expect(file).to.deep.include({
      name: 'a/b/etc/passwd',
      type: 'reg',
      mode: 0o4644,
      size: 10,
      offset: 1024,
    });
    expect(bytes.toString('latin1', file!.offset, file!.offset + file!.size)).to.equal('root:x:0:0');
    expect(char).to.deep.include({ type: 'char', devmajor: 1, devminor: 3 });
    expect(symlink).to.deep.include({ type: 'symlink', linkname: '../etc/passwd' });
    expect(fifo).to.deep.include({ type: 'fifo' });
    expect(hard).to.deep.include({ type: 'hardlink', linkname: 'etc/passwd', size: 0 });
    expect(block).to.deep.include({ type: 'block', devmajor: 8, devminor: 300 });
  });

  it('lets pax records win over the header, and keeps them', () => {
    const found = only(
      tar({
        name: 'short',
        data: 'abc',
        pax: {
          path: 'a/much/longer/näme',
          uid: '4000000000',
          gid: '7',
          mtime: '1350244992.0239601089',
          uname: 'ü',
          'SCHILY.xattr.security.capability': Buffer.from([1, 0, 0, 2, 0xff, 0x80, 0]),
        },
      }),
    );
    expect(found).to.deep.include({ name: 'a/much/longer/näme', uid: 4_000_000_000, gid: 7, uname: 'ü' });
    expect(found.mtime).to.deep.equal({ seconds: 1_350_244_992, nanoseconds: 23_960_108 });
    expect(encodeBytes(xattrs(found).get('security.capability')!)).to.deep.equal(
      Buffer.from([1, 0, 0, 2, 0xff, 0x80, 0]),
    );
  });

  it('rounds times before 1970 down', () => {
    const time = (mtime: string): unknown => only(tar({ name: 'a', pax: { mtime } })).mtime;
    expect(time('-1.25')).to.deep.equal({ seconds: -2, nanoseconds: 750_000_000 });
    expect(time('-3')).to.deep.equal({ seconds: -3, nanoseconds: 0 });
    expect(time('-0.5')).to.deep.equal({ seconds: -1, nanoseconds: 500_000_000 });
    expect(only(tar({ name: 'a', mtime: -5 })).mtime).to.deep.equal({ seconds: -5, nanoseconds: 0 });
  });

  it('applies no global record to an entry, as Go does not', () => {
    const bytes = tar(
      paxHeader({ size: '1024', uname: 'builder', 'SCHILY.xattr.user.a': '1' }, 'g'),
      { name: 'a' },
      { name: 'b', data: 'content', pax: { uname: 'me' } },
    );
    const [a, b] = read(bytes);
    expect(a).to.deep.include({ name: 'a', size: 0, uname: '', pax: new Map() });
    expect(b).to.deep.include({ name: 'b', size: 7, uname: 'me' });
  });

  it('loses the headers in front of a global one, as Go does', () => {
    const bytes = tar(
      paxHeader({ path: 'harmless' }),
      gnuLong('L', 'harmless'),
      paxHeader({ a: '1' }, 'g'),
      entry({ name: 'door', data: 'x' }),
    );
    expect(only(bytes).name).to.equal('door');
  });

  it('ignores long names that are empty', () => {
    const empty = (type: string): Buffer => entry({ name: '././@LongLink', type, magic: 'ustar  \0' });
    const link = entry({ name: 'door', type: '2', linkname: 'wall' });
    for (const bytes of [tar(empty('L'), empty('K'), link), tar(gnuLong('L', ''), gnuLong('K', ''), link)])
      expect(only(bytes)).to.deep.include({ name: 'door', linkname: 'wall' });
  });

  it('takes negative owners for the large ones that they are in 32 bits', () => {
    const nobody = { uid: 4_294_967_294, gid: 4_294_967_295 };
    expect(only(tar({ name: 'a', uid: -2, gid: -1 }))).to.deep.include(nobody);
    expect(only(tar({ name: 'a', pax: { uid: '-2', gid: '-1' } }))).to.deep.include(nobody);
  });

  it('reads GNU long names and links', () => {
    const long = 'd/'.repeat(300);
    const found = only(
      tar(gnuLong('L', `${long}name`), gnuLong('K', `${long}target`), {
        name: 'x',
        type: '2',
        magic: 'ustar  \0',
      }),
    );
    expect(found).to.deep.include({ name: `${long}name`, linkname: `${long}target` });
  });

  it('reads base-256 numbers', () => {
    const found = only(tar({ name: 'a', uid: 3_000_000_000, mtime: 2 ** 40 }));
    expect(found).to.deep.include({ uid: 3_000_000_000 });
    expect(found.mtime.seconds).to.equal(2 ** 40);
  });

  it('tells the prefix that Go once wrote from the times of GNU tar', () => {
    const withPrefix = entry({ name: 'name', magic: 'ustar  \0', prefix: 'usr/share/deep' });
    expect(only(tar(withPrefix)).name).to.equal('usr/share/deep/name');
    const withTimes = entry({ name: 'name', magic: 'ustar  \0', prefix: '14371532520\u000014371532520\0' });
    expect(only(tar(withTimes)).name).to.equal('name');
  });

  it('reads V7 archives, where a slash makes a directory', () => {
    const bytes = tar(
      { name: 'dir/', type: '\0', magic: '', uname: 'ignored' },
      { name: 'file', type: '\0', magic: '', data: 'x' },
    );
    expect(read(bytes).map(({ name, type, uname }) => [name, type, uname])).to.deep.equal([
      ['dir/', 'dir', ''],
      ['file', 'reg', ''],
    ]);
  });

  it('keeps names that are not UTF-8, byte for byte', () => {
    const name = decodeBytes(Buffer.from([0x66, 0xfc, 0x72, 0xed, 0xb2, 0x80, 0xc3, 0xa9, 0xc3]));
    expect(encodeBytes(only(tar({ name })).name)).to.deep.equal(encodeBytes(name));
    expect(only(tar({ name: 'x', pax: { path: name } })).name).to.equal(name);
  });

  describe('with sparse files', () => {
    const segments = [
      { offset: 0, size: 3 },
      { offset: 1000, size: 4 },
    ];

    it('takes a file of a version that does not exist as it is', () => {
      const pax = {
        'GNU.sparse.major': '9',
        'GNU.sparse.minor': '0',
        'GNU.sparse.map': '4,4',
        'GNU.sparse.realsize': '8',
        'GNU.sparse.name': 'harmless',
      };
      expect(only(tar({ name: 'f', data: 'abcd', pax }))).to.deep.include({
        name: 'f',
        size: 4,
        sparse: undefined,
      });
    });

    it('leaves a file that is not sparse its own name', () => {
      const pax = { 'GNU.sparse.name': 'harmless', path: 'usr/bin/door' };
      expect(only(tar({ name: 'f', data: 'abcd', pax })).name).to.equal('usr/bin/door');
    });

    it('reads pax 0.0, 0.1 and 1.0', () => {
      const zero = Buffer.concat([
        Buffer.from('22 GNU.sparse.size=2000\n22 GNU.sparse.numblocks=2\n'),
        Buffer.from('23 GNU.sparse.offset=0\n25 GNU.sparse.numbytes=3\n'),
        Buffer.from('26 GNU.sparse.offset=1000\n25 GNU.sparse.numbytes=4\n'),
      ]);
      // Lengths are recomputed rather than counted by hand.
      const records = zero
        .toString()
        .trim()
        .split('\n')
        .map((line) => line.slice(line.indexOf(' ')))
        .map((rest) => {
          let length = rest.length + 1;
          while (String(length).length + rest.length + 1 !== length)
            length = String(length).length + rest.length + 1;
          return `${length}${rest}\n`;
        });
      const v00 = tar(entry({ name: 'PaxHeaders', type: 'x', data: records.join('') }), {
        name: 's',
        data: 'abcdefg',
      });
      const v01 = tar({
        name: 'GNUSparseFile.0/s',
        data: 'abcdefg',
        pax: { 'GNU.sparse.size': '2000', 'GNU.sparse.name': 's', 'GNU.sparse.map': '0,3,1000,4' },
      });
      const map = Buffer.concat([Buffer.from('2\n0\n3\n1000\n4\n'), Buffer.alloc(512)]).subarray(0, 512);
      const v10 = tar({
        name: 'GNUSparseFile.0/s',
        data: Buffer.concat([map, Buffer.from('abcdefg')]),
        pax: {
          'GNU.sparse.major': '1',
          'GNU.sparse.minor': '0',
          'GNU.sparse.name': 's',
          'GNU.sparse.realsize': '2000',
        },
      });
      for (const bytes of [v00, v01, v10]) {
        for (const chunkSize of [bytes.length, 100]) {
          const [found] = read(bytes, chunkSize);
          expect(found).to.deep.include({ name: 's', size: 7, sparse: { size: 2000, segments } });
          expect(bytes.toString('latin1', found!.offset, found!.offset + 7)).to.equal('abcdefg');
        }
      }
    });

    it('reads the old GNU format, with and without extension blocks', () => {
      const put = (block: Buffer, at: number, numbers: readonly number[]): void => {
        numbers.forEach((number, index) => {
          block.write(number.toString(8).padStart(11, '0'), at + index * 12, 'latin1');
        });
      };
      const patch = (isExtended: number) => (header: Buffer) => {
        put(header, 386, [0, 3]);
        if (isExtended === 0) put(header, 410, [1000, 4]);
        header[482] = isExtended;
        header.write('00000003720', 483, 'latin1');
      };
      const old = entry({ name: 's', type: 'S', data: 'abcdefg', magic: 'ustar  \0', patch: patch(0) });
      expect(only(tar(old))).to.deep.include({ name: 's', size: 7, sparse: { size: 2000, segments } });

      const [header, data] = [
        entry({ name: 's', type: 'S', size: 7, magic: 'ustar  \0', patch: patch(1) }),
        Buffer.concat([Buffer.from('abcdefg'), Buffer.alloc(505)]),
      ];
      const extension = Buffer.alloc(512);
      put(extension, 0, [1000, 4]);
      const found = only(tar(header, extension, data));
      expect(found).to.deep.include({ offset: 1024, size: 7, sparse: { size: 2000, segments } });
    });

    it('refuses maps that lie', () => {
      const sparse = (map: string, size = '2000'): Buffer =>
        tar({ name: 's', data: 'abcdefg', pax: { 'GNU.sparse.size': size, 'GNU.sparse.map': map } });
      expect(() => read(sparse('0,3,1000,5'))).to.throw(/does not fit its size/);
      expect(() => read(sparse('0,3,1000,4', '1003'))).to.throw(/does not fit its size/);
      expect(() => read(sparse('1000,4,0,3'))).to.throw(/not in order/);
      expect(() => read(sparse('0,3,x,4'))).to.throw(/not a list of numbers/);
      expect(() => read(sparse('0,3,4'))).to.throw(/not a list of numbers/);
      const version1 = (text: string): Buffer =>
        tar({
          name: 's',
          data: Buffer.concat([Buffer.from(text), Buffer.alloc(2048)]).subarray(0, 2048),
          pax: { 'GNU.sparse.major': '1', 'GNU.sparse.minor': '0', 'GNU.sparse.realsize': '9' },
        });
      expect(() => read(version1(`99999\n${'1\n'.repeat(1021)}`))).to.throw(/larger than the file/);
      expect(() => read(version1('999999999\n1\n1'))).to.throw(/more than 100000 segments/);
      expect(() => read(version1('x\n1\n1'))).to.throw(/not a list of numbers/);
      expect(() => read(version1('1'.repeat(1100)))).to.throw(/not a list of numbers/);
      expect(() => read(version1('1\n\n1'))).to.throw(/not a list of numbers/);
    });
  });

  it('reads the same whatever the size of the chunks', () => {
    const bytes = tar(
      paxHeader({ comment: 'x' }, 'g'),
      { name: 'a/'.repeat(90), mtime: 5 },
      { name: 'file', data: Buffer.alloc(3000, 7), pax: { 'SCHILY.xattr.user.x': Buffer.from([255, 0]) } },
      { name: 'link', type: '2', linkname: 'x'.repeat(300) },
    );
    const wanted = read(bytes);
    fc.assert(
      fc.property(fc.integer({ min: 1, max: bytes.length }), (size) => {
        expect(read(bytes, size)).to.deep.equal(wanted);
      }),
      { numRuns: 40 },
    );
  });

  it('takes an empty layer, an archive without an end marker, and anything behind the marker', () => {
    expect(read(Buffer.alloc(0))).to.deep.equal([]);
    expect(read(tar())).to.deep.equal([]);
    expect(read(entry({ name: 'a', data: 'b' }))).to.have.length(1);
    const junk = Buffer.concat([tar({ name: 'a' }), Buffer.from('junk'.repeat(1000))]);
    const reader = new TarReader(() => undefined);
    reader.push(junk);
    reader.finish();
    expect(reader.end).to.equal(1536);
    expect(reader.offset).to.equal(junk.length);
  });

  it('refuses an archive that ends inside an entry', () => {
    const bytes = tar(gnuLong('L', 'long'), { name: 'a', data: 'abc', pax: { 'a.b': 'c' } }).subarray(
      0,
      -1024,
    );
    const dataEnd = bytes.length - 512 + 3;
    for (let length = 1; length < bytes.length; length += 61) {
      if (length >= dataEnd) continue;
      expect(() => read(bytes.subarray(0, length)), String(length)).to.throw(/truncated/);
    }
    expect(read(bytes.subarray(0, dataEnd))).to.have.length(1);
  });

  it('refuses what is no tar, with ARCHIVE_INVALID and the offset', () => {
    const refused = (bytes: Buffer, message: RegExp): void => {
      try {
        read(bytes);
      } catch (error) {
        expect(isLayercacheError(error, 'ARCHIVE_INVALID')).to.equal(true);
        expect((error as Error).message).to.match(message);
        return;
      }
      expect.fail(`not refused: ${String(message)}`);
    };
    refused(Buffer.alloc(1024, 'x'), /at byte 0: the checksum/);
    refused(tar({ name: 'a' }, { name: 'b', type: 'V' }), /at byte 512: entries of type "V"/);
    refused(Buffer.concat([Buffer.alloc(512), entry({ name: 'a' })]), /behind a block of zeros/);
    refused(tar({ name: 'a', pax: { uid: '-2147483649' } }), /owner -2147483649 is out of range/);
    refused(tar({ name: 'a', pax: { gid: '4294967296' } }), /owner 4294967296 is out of range/);
    refused(
      tar({ name: 'a', patch: (header) => header.write('12x', 100, 'latin1') }),
      /the mode of an entry/,
    );
    refused(tar({ name: 'a', pax: { size: 'many' } }), /"size" is not a number/);
    refused(tar({ name: 'a', pax: { mtime: 'noon' } }), /"mtime" is not a time/);
    refused(tar({ name: 'a', pax: { size: '-1' } }), /size of an entry is negative/);
    refused(tar({ name: 'a', pax: { path: 'a\0b' } }), /NUL/);
    for (const data of ['x', '5 a=', '9 a=bcdef', '-3 a=\n', '6 =bc\n', '5 ab\n']) {
      refused(tar(entry({ name: 'p', type: 'x', data }), { name: 'a' }), /a pax record/);
    }
  });

  it('has limits, and says which was met', () => {
    const limits = { entries: 2, header: 1000, name: 100, metadata: 250, segments: 1 };
    const three = tar({ name: 'a' }, { name: 'b' }, { name: 'c' });
    expect(() => read(three, three.length, limits)).to.throw(/more than 2 entries/);
    const refused = (bytes: Buffer, message: RegExp): void => {
      expect(() => read(bytes, bytes.length, limits)).to.throw(message);
    };
    refused(tar({ name: 'a', pax: { comment: 'x'.repeat(1000) } }), /is larger than 1000/);
    refused(tar({ name: 'a'.repeat(101) }), /a name is longer than 100/);
    refused(tar({ name: 'a', pax: { comment: 'x'.repeat(300) } }), /more than 250 bytes/);
    // Records and segments are counted by what it takes to hold them, not by their few bytes.
    refused(tar({ name: 'a', pax: { b: '', c: '', d: '', e: '' } }), /more than 250 bytes/);
    const sparse = (map: string): Buffer =>
      tar({ name: 'a', data: '12', pax: { 'GNU.sparse.map': map, 'GNU.sparse.size': '9' } });
    refused(sparse('0,1,2,1'), /more than 1 segments/);
    const inData = { 'GNU.sparse.major': '1', 'GNU.sparse.minor': '0', 'GNU.sparse.realsize': '9' };
    refused(
      tar({ name: 'a', data: `2\n0\n1\n2\n1\n`.padEnd(512, '\0'), pax: inData }),
      /more than 1 segments/,
    );
    const huge = tar(entry({ name: 'p', type: 'x', size: 2 ** 40 }));
    expect(() => read(huge)).to.throw(/1099511627776 bytes is larger than 1048576/);
  });
});

describe('byte strings', () => {
  it('lose nothing, whatever the bytes', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 40 }), (bytes) => {
        expect(encodeBytes(decodeBytes(bytes))).to.deep.equal(Buffer.from(bytes));
      }),
    );
  });

  it('are ordinary text where the bytes are UTF-8', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'grapheme' }), (text) => {
        expect(decodeBytes(Buffer.from(text))).to.equal(text);
      }),
    );
  });

  it('compare as their bytes do', () => {
    expect(compareBytes('\u{ffff}', '\u{10000}')).to.equal(-1);
    expect(compareBytes('a', 'a')).to.equal(0);
    // Single characters, and single bytes that are no UTF-8.
    const text = fc
      .array(fc.oneof(fc.constantFrom('a', 'ü', '\uffff', '\u{10000}', '\u{1f600}'), fc.nat({ max: 255 })), {
        maxLength: 6,
      })
      .map((all) =>
        Buffer.concat(
          all.map((each) => (typeof each === 'number' ? Buffer.from([each]) : Buffer.from(each))),
        ),
      );
    fc.assert(
      fc.property(text, text, (a, b) => {
        expect(compareBytes(decodeBytes(a), decodeBytes(b))).to.equal(Buffer.compare(a, b));
      }),
      { numRuns: 500 },
    );
  });
});
