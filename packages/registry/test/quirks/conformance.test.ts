import { RegistryClient } from '../../src/client/registry-client.js';
import { MemoryRegistry } from '../../src/memory-registry.js';
import {
  basicAuth,
  chunkMinimum,
  createdForChunks,
  droppingConnections,
  rateLimited,
  requestLimit,
  strictIndexes,
  tokenAuth,
  withoutMounts,
  withoutRanges,
  withoutReferrers,
  withoutSubjectHeader,
} from '../../src/quirks/index.js';
import type { RequestHandler } from '../../src/server/registry-handler.js';
import { createRegistryServer } from '../../src/server/registry-server.js';
import { describeRegistry, type Lack } from '../conformance/index.js';

type Wrap = (handler: RequestHandler) => RequestHandler;

const ACCOUNT = { username: 'someone', password: 'a secret' };
const MIB = 1024 * 1024;

/** All that a client has to live with, one by one and together. */
const QUIRKS: readonly (readonly [name: string, wrap: Wrap, lacks?: readonly Lack[]])[] = [
  ['no OCI-Subject header', withoutSubjectHeader],
  ['chunks of 5 MiB or more', (handler) => requestLimit(6 * MIB)(chunkMinimum(5 * MIB)(handler))],
  [
    'too many requests, and a password',
    (handler) => rateLimited({ times: 3, retryAfter: 0 })(basicAuth(ACCOUNT)(handler)),
  ],
  ['dropping connections', droppingConnections({ times: 3, after: 70_000 })],
  [
    'nothing but the least, and tokens',
    (handler) =>
      tokenAuth({ account: ACCOUNT })(
        requestLimit(4 * MIB)(createdForChunks(withoutRanges(withoutMounts(withoutReferrers(handler))))),
      ),
    ['mount'],
  ],
];

for (const [name, wrap, lacks = []] of QUIRKS) {
  describeRegistry(
    `client over a registry with ${name}`,
    async () => {
      const server = createRegistryServer(strictIndexes(new MemoryRegistry()), { wrap });
      await server.listen({ host: '127.0.0.1', port: 0 });
      const registry = new RegistryClient(new URL(server.url).host, {
        credentials: { get: () => Promise.resolve({ kind: 'password', ...ACCOUNT }) },
        retry: { delay: 1 },
      });
      return { registry, close: () => server.close() };
    },
    lacks,
  );
}
