import { randomBytes } from 'node:crypto';
import { expect } from 'chai';
import {
  MemoryRegistry,
  RegistryClient,
  createRegistryServer,
  memorySpools,
  type Registry,
  type RequestHandler,
} from '@layercache/registry';
import {
  createdForChunks,
  droppingConnections,
  rateLimited,
  requestLimit,
  slow,
  strictIndexes,
  tokenAuth,
  withoutMounts,
  withoutRanges,
  withoutReferrers,
} from '@layercache/registry/quirks';
import { MediaType } from '@layercache/oci';
import { imageOf, layerOf, pushImage, tarOf } from './image-builder.js';
import { Scratch, bytesOf } from './test-cache.js';

type Wrap = (handler: RequestHandler) => RequestHandler;

interface Place {
  readonly wraps: readonly Wrap[];
  readonly registry?: (registry: Registry) => Registry;
}

const plain = (registry: Registry): Registry => registry;
const account = { username: 'ci', password: 'secret' };
const MiB = 1024 * 1024;

/** What changes the way that a cache goes takes a place of its own; the rest is in the last. */
const PLACES: Readonly<Record<string, () => Place>> = {
  '201 for a chunk, and 4 MiB for a request': () => ({ wraps: [requestLimit(4 * MiB), createdForChunks] }),
  'no ranges, and connections that break off': () => ({
    wraps: [withoutRanges, droppingConnections({ times: 3, after: 100_000 })],
  }),
  'no mounts': () => ({ wraps: [withoutMounts] }),
  'indexes of manifests and nothing else': () => ({ wraps: [], registry: strictIndexes }),
  'tokens for one repository and one action': () => ({ wraps: [tokenAuth({ account })] }),
  'all of that at once': () => ({
    wraps: [
      withoutReferrers,
      requestLimit(4 * MiB),
      createdForChunks,
      withoutRanges,
      withoutMounts,
      droppingConnections({ times: 2, after: 100_000 }),
      rateLimited({ times: 3, retryAfter: 0 }),
      slow(1),
      tokenAuth({ account }),
    ],
    registry: strictIndexes,
  }),
};

describe('a whole cache in a registry with', () => {
  const scratch = new Scratch();
  const closing: (() => Promise<void>)[] = [];
  afterEach(async () => {
    await scratch.clean();
    for (const close of closing.splice(0)) await close();
  });

  const large = layerOf(tarOf({ data: randomBytes(5 * MiB) }), MediaType.layerZstd);
  const small = layerOf(tarOf({ data: randomBytes(200_000) }));

  for (const [name, place] of Object.entries(PLACES)) {
    it(`${name}: goes there and comes back, eagerly and lazily`, async () => {
      const { wraps, registry = plain } = place();
      const memory = new MemoryRegistry();
      await pushImage(memory, 'large', '1', imageOf([large]));
      await pushImage(memory, 'small', '1', imageOf([small]));
      const server = createRegistryServer(registry(memory), {
        openSpool: memorySpools(),
        wrap: (handler) => wraps.reduce((wrapped, wrap) => wrap(wrapped), handler),
      });
      await server.listen({ host: '127.0.0.1', port: 0 });
      closing.push(() => server.close());
      const { host } = new URL(server.url);
      const connect = (): Registry =>
        new RegistryClient(host, {
          credentials: { get: () => Promise.resolve({ kind: 'password', ...account }) },
          retry: { delay: 1, maxDelay: 5 },
        });
      const [from, whole, lazy] = [connect(), connect(), connect()];
      const target = `${host}/team/cache:main`;
      const cache = await scratch.cache({ registry: (of) => (of === host ? from : memory) });
      // From another registry, so that it must be sent; and from this one, so that it might be mounted.
      await cache.add('origin.test/large:1');
      await cache.add(`${host}/small:1`);
      const pushed = await cache.push(target);
      expect(pushed.sent.blobs + pushed.mounted).to.equal(4);
      expect(pushed.mounted).to.equal(wraps.includes(withoutMounts) ? 0 : 2);
      expect((await cache.push(target)).digest).to.equal(pushed.digest);

      const eager = await scratch.cache({ registry: () => whole });
      await eager.pull(target);
      const onDemand = await scratch.cache({ registry: () => lazy });
      await onDemand.pull(target, { lazy: true });
      for (const other of [eager, onDemand]) {
        for (const layer of [large, small]) {
          expect(await bytesOf(other.layer(layer.diffID).uncompressed())).to.deep.equal(layer.tar);
          expect(await bytesOf(other.blob(layer.descriptor.digest))).to.deep.equal(layer.bytes);
        }
      }
    });
  }
});
