import { expect } from 'chai';
import { digestOf, isLayercacheError, type Digest } from '@layercache/oci';
import { contentDigests } from '../../src/extract/content-digests.js';
import type { Content } from '../../src/merge/tree.js';
import { portionsOf } from '../layers.js';
import { archive, merge, type Described } from '../merge/layer-stacks.js';

async function* stream(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  for (const portion of portionsOf(bytes, 700)) yield await Promise.resolve(portion);
}

function contentsOf(...entries: Described[]): Map<string, Content> {
  return new Map(
    [...merge(entries).nodes()].flatMap(({ path, inode }) =>
      inode.content === undefined ? [] : [[path, inode.content]],
    ),
  );
}

const pax = { 'GNU.sparse.size': '3000000', 'GNU.sparse.map': '5,3,2000000,4' };
const ENTRIES: Described[] = [
  { name: 'first', data: 'one' },
  { name: 'sparse', data: 'abcdefg', pax },
  { name: 'hole', pax: { 'GNU.sparse.size': '70000', 'GNU.sparse.map': '0,0' } },
  'empty',
  { name: 'last', data: Buffer.alloc(5000, 'last') },
];

describe('digests of the contents of a layer', () => {
  it('are those of the files, with the holes of sparse ones', async () => {
    const contents = contentsOf(...ENTRIES);
    const found = await contentDigests(stream(archive(...ENTRIES)), contents.values());
    const digests: Record<string, Digest | undefined> = {};
    for (const [path, content] of contents) digests[path] = found.get(content);
    const sparse = Buffer.alloc(3_000_000);
    sparse.write('abc', 5);
    sparse.write('defg', 2_000_000);
    expect(digests).to.deep.equal({
      empty: digestOf(''),
      first: digestOf('one'),
      hole: digestOf(Buffer.alloc(70_000)),
      last: digestOf(Buffer.alloc(5000, 'last')),
      sparse: digestOf(sparse),
    });
  });

  it('end when the caller gives up, however large the hole', async () => {
    const huge: Described = {
      name: 'huge',
      pax: { 'GNU.sparse.size': String(2 ** 50), 'GNU.sparse.map': '0,0' },
    };
    const abort = new AbortController();
    setTimeout(() => {
      abort.abort();
    }, 20);
    const failed = await contentDigests(stream(archive(huge)), contentsOf(huge).values(), abort.signal).catch(
      (error: unknown) => error,
    );
    expect(isLayercacheError(failed, 'ABORTED')).to.equal(true);
  });
});
