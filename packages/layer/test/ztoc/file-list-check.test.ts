import { expect } from 'chai';
import { Readable } from 'node:stream';
import { gzipSync } from 'node:zlib';
import { isLayercacheError } from '@layercache/oci';
import { indexLayer } from '../../src/index-layer.js';
import type { TarEntry } from '../../src/tar/entry.js';
import { withFileListCheck } from '../../src/ztoc/file-list-check.js';
import type { Ztoc } from '../../src/ztoc/ztoc.js';
import { decodeZtoc, encodeZtoc } from '../../src/ztoc/ztoc-codec.js';
import { portionsOf, someTar } from '../layers.js';
import { tar } from '../tar/tar-builder.js';

const odd = tar(
  { name: 'dir/', mode: 0o1777, uid: 7, uname: 'me', mtime: -5 },
  { name: 'file', data: 'content', pax: { 'SCHILY.xattr.user.a': 'b', comment: 'c', mtime: '1.5' } },
  { name: 'sparse', data: 'abcdefg', pax: { 'GNU.sparse.size': '70000', 'GNU.sparse.map': '5,3,1000,4' } },
  { name: 'link', type: '2', linkname: 'file' },
  { name: 'null', type: '3', devmajor: 1, devminor: 3 },
);

async function indexOf(bytes: Buffer): Promise<Ztoc> {
  const { ztoc } = await indexLayer([gzipSync(bytes)], { form: 'tar+gzip', workers: 0 });
  return decodeZtoc(encodeZtoc(ztoc));
}

async function check(bytes: Buffer, ztoc: Ztoc): Promise<Buffer> {
  const pieces: Uint8Array[] = [];
  const stream = Readable.from(portionsOf(bytes, 700)) as AsyncIterable<Uint8Array>;
  for await (const piece of withFileListCheck(stream, ztoc)) pieces.push(piece);
  return Buffer.concat(pieces);
}

async function refusal(bytes: Buffer, ztoc: Ztoc): Promise<string> {
  try {
    await check(bytes, ztoc);
  } catch (error) {
    if (isLayercacheError(error, 'COMPRESSION_INVALID')) return error.message;
    throw error;
  }
  return 'nothing';
}

describe('the check of a file list against the tar', () => {
  it('lets the tar through when the list is true', async () => {
    for (const bytes of [someTar(), odd, tar(), Buffer.concat([odd, Buffer.alloc(5000)])])
      expect((await check(bytes, await indexOf(bytes))).equals(bytes)).to.equal(true);
  });

  it('allows other records than attributes to be left out', async () => {
    const ztoc = await indexOf(odd);
    const entries = ztoc.entries.map((entry) => ({
      ...entry,
      pax: new Map([...entry.pax].filter(([key]) => key.startsWith('SCHILY.xattr.'))),
    }));
    expect((await check(odd, { ...ztoc, entries })).equals(odd)).to.equal(true);
  });

  const lies: Readonly<Record<string, Partial<TarEntry>>> = {
    'another name': { name: 'fine' },
    'another type': { type: 'fifo' },
    'another target': { linkname: 'dir' },
    'another place': { offset: 99 },
    'another size': { size: 1 },
    'other holes': { sparse: { size: 9, segments: [] } },
    'another mode': { mode: 0o4755 },
    'another owner': { uid: 1000 },
    'another group': { gid: 1000 },
    'another owner by name': { uname: 'root' },
    'another group by name': { gname: 'wheel' },
    'another time': { mtime: { seconds: 7, nanoseconds: 5 } },
    'another device': { devminor: 8 },
    'other attributes': { pax: new Map([['SCHILY.xattr.user.a', 'x']]) },
  };
  for (const [lie, change] of Object.entries(lies)) {
    it(`refuses ${lie}, of any entry`, async () => {
      const ztoc = await indexOf(odd);
      for (let index = 0; index < ztoc.entries.length; index++) {
        const entries = ztoc.entries.map((entry, at) => (at === index ? { ...entry, ...change } : entry));
        expect(await refusal(odd, { ...ztoc, entries })).to.match(/where the tar has another entry at byte/);
      }
    });
  }

  it('refuses lists that are shorter, longer or in another order, and another end', async () => {
    const ztoc = await indexOf(odd);
    const { entries } = ztoc;
    expect(await refusal(odd, { ...ztoc, entries: entries.slice(0, -1) })).to.match(
      /4 entries, where the tar has more/,
    );
    expect(await refusal(odd, { ...ztoc, entries: [...entries, entries[0]!] })).to.match(
      /6 entries, where the tar has 5/,
    );
    expect(await refusal(odd, { ...ztoc, entries: entries.toReversed() })).to.match(/another entry/);
    expect(await refusal(odd, { ...ztoc, uncompressedSize: 512 })).to.match(/ends at byte 512/);
  });
});
