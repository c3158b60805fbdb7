import { RegistryClient } from '../../src/client/registry-client.js';
import { MemoryRegistry } from '../../src/memory-registry.js';
import type { Registry } from '../../src/registry.js';
import { createRegistryServer, type RegistryServerOptions } from '../../src/server/registry-server.js';
import { describeRegistry, type OpenedRegistry } from './index.js';

async function serve(behind: Registry, options: RegistryServerOptions = {}): Promise<OpenedRegistry> {
  const server = createRegistryServer(behind, options);
  await server.listen({ host: '127.0.0.1', port: 0 });
  const registry = new RegistryClient(new URL(server.url).host);
  return {
    registry,
    close: () => server.close(),
  };
}

describeRegistry('in memory', () =>
  Promise.resolve({ registry: new MemoryRegistry(), close: () => Promise.resolve() }),
);

describeRegistry('client over server over memory', () => serve(new MemoryRegistry()));

describeRegistry('client over server over client over server over memory', async () => {
  const inner = await serve(new MemoryRegistry());
  const outer = await serve(inner.registry);
  return {
    registry: outer.registry,
    close: async () => {
      await outer.close();
      await inner.close();
    },
  };
});
