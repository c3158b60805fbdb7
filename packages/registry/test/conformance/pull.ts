import { randomBytes } from 'node:crypto';
import type { Readable } from 'node:stream';
import { MediaType, digestOf, isLayercacheError, type ErrorCode } from '@layercache/oci';
import { expect } from 'chai';
import type { Registry } from '../../src/registry.js';
import { imageIndex, pushBytes, pushImage } from '../images.js';

/** What a registry under test cannot do, although the interface has it. */
export type Lack = 'tag deletion' | 'blob deletion' | 'sha512' | 'missing parts' | 'catalog' | 'mount';

/** One registry, and a repository's name that no other test uses. */
export interface Subject {
  readonly registry: () => Registry;
  readonly repository: () => string;
  readonly lacks: ReadonlySet<Lack>;
}

const NOTHING = digestOf('nothing has this digest');

export async function read(body: Readable): Promise<Buffer> {
  const chunks: Uint8Array[] = [];
  for await (const chunk of body as AsyncIterable<Uint8Array>) chunks.push(chunk);
  return Buffer.concat(chunks);
}

export async function readBlob(registry: Registry, repository: string, bytes: Uint8Array): Promise<Buffer> {
  const { body, size } = await registry.fetchBlob(repository, digestOf(bytes));
  if (size !== undefined) expect(size).to.equal(bytes.length);
  return read(body);
}

export async function expectFailure(work: Promise<unknown>, ...codes: ErrorCode[]): Promise<void> {
  let result: unknown;
  try {
    result = await work;
  } catch (error) {
    if (isLayercacheError(error, ...codes)) return;
    throw error;
  }
  expect.fail(`resolved with ${JSON.stringify(result)} instead of failing with ${codes.join(' or ')}`);
}

export function describePull({ registry, repository }: Subject): void {
  describe('pull', () => {
    it('gives a blob back whole', async () => {
      const name = repository();
      for (const bytes of [Buffer.from('x'), randomBytes(100_000), randomBytes(3_000_001)]) {
        const { digest } = await pushBytes(registry(), name, bytes);
        expect(await registry().blobSize(name, digest)).to.equal(bytes.length);
        expect((await readBlob(registry(), name, bytes)).equals(bytes)).to.equal(true);
      }
    });

    it('gives the part of a blob that was asked for, or says that it starts at 0', async () => {
      const name = repository();
      const bytes = randomBytes(200_000);
      const { digest } = await pushBytes(registry(), name, bytes);
      for (const [first, last] of [
        [0, 0],
        [0, 99_999],
        [70_000, 70_001],
        [150_000, 199_999],
        [199_999, undefined],
        [1, undefined],
      ] as const) {
        const range = last === undefined ? { first } : { first, last };
        const { body, offset } = await registry().fetchBlob(name, digest, { range });
        const got = await read(body);
        expect(offset).to.be.oneOf([0, first]);
        const wanted = bytes.subarray(first, (last ?? bytes.length - 1) + 1);
        const found = offset === first && first > 0 ? got : got.subarray(first - offset);
        expect(found.subarray(0, wanted.length).equals(wanted), `${first}-${last}`).to.equal(true);
        if (offset > 0) expect(got.length).to.equal(wanted.length);
      }
    });

    it('says that a blob is not there', async () => {
      const name = repository();
      await pushBytes(registry(), name, Buffer.from('another'));
      expect(await registry().blobSize(name, NOTHING)).to.equal(undefined);
      await expectFailure(registry().fetchBlob(name, NOTHING), 'NOT_FOUND');
    });

    it('gives a manifest by tag and by digest, byte for byte', async () => {
      const name = repository();
      const pushed = await pushImage(registry(), name, 'image', { tag: '1.0' });
      for (const reference of ['1.0', pushed.digest]) {
        expect(await registry().resolve(name, reference)).to.deep.equal(pushed);
        const { descriptor, bytes } = await registry().fetchManifest(name, reference);
        expect(descriptor).to.deep.equal(pushed);
        expect(digestOf(bytes)).to.equal(pushed.digest);
        expect(bytes.length).to.equal(pushed.size);
      }
    });

    it('gives an image index and its children', async () => {
      const name = repository();
      const children = [await pushImage(registry(), name, 'one'), await pushImage(registry(), name, 'two')];
      const bytes = imageIndex(children);
      const pushed = await registry().pushManifest(name, MediaType.index, bytes, { tag: 'all' });
      const got = await registry().fetchManifest(name, 'all');
      expect(got.descriptor).to.deep.equal(pushed);
      expect(got.descriptor.mediaType).to.equal(MediaType.index);
      expect(Buffer.from(got.bytes)).to.deep.equal(bytes);
      for (const child of children) expect(await registry().resolve(name, child.digest)).to.deep.equal(child);
    });

    it('says that a manifest, a tag or a repository is not there', async () => {
      const name = repository();
      await pushImage(registry(), name, 'image', { tag: 'there' });
      for (const [where, reference] of [
        [name, 'absent'],
        [name, NOTHING],
        [repository(), 'there'],
      ] as const) {
        await expectFailure(registry().resolve(where, reference), 'NOT_FOUND');
        await expectFailure(registry().fetchManifest(where, reference), 'NOT_FOUND');
      }
    });

    it('fails at once for who has already given up', async () => {
      const name = repository();
      const { digest } = await pushBytes(registry(), name, Buffer.from('x'));
      const signal = AbortSignal.abort();
      await expectFailure(registry().fetchBlob(name, digest, { signal }), 'ABORTED');
    });
  });
}
