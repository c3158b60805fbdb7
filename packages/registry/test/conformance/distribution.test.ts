import { RegistryClient } from '../../src/client/registry-client.js';
import { createRegistryServer } from '../../src/server/registry-server.js';
import { findProgram, startDistribution } from './distribution.js';
import { describeRegistry, type Lack } from './index.js';

const REGISTRIES: readonly (readonly [name: string, program: string, lacks: readonly Lack[]])[] = [
  ['distribution 2.8', 'docker-registry', ['tag deletion']],
  ['distribution 3', 'registry', []],
];

for (const [name, program, lacks] of REGISTRIES) {
  const path = findProgram(program);
  if (path === undefined && process.env.LAYERCACHE_REQUIRE_INTEROP !== '1') {
    describe(`the Registry interface: client over ${name}`, () => {
      it(`needs ${program} to be installed`);
    });
    continue;
  }
  const start = (): ReturnType<typeof startDistribution> => {
    if (path === undefined)
      throw new Error(`${program} is not installed, and LAYERCACHE_REQUIRE_INTEROP is set`);
    return startDistribution(path);
  };

  describeRegistry(
    `client over ${name}`,
    async () => {
      const running = await start();
      return { registry: new RegistryClient(running.host), close: () => running.close() };
    },
    lacks,
  );

  describeRegistry(
    `client over our server over client over ${name}`,
    async () => {
      const running = await start();
      const server = createRegistryServer(new RegistryClient(running.host));
      await server.listen({ host: '127.0.0.1', port: 0 });
      return {
        registry: new RegistryClient(new URL(server.url).host),
        close: async () => {
          await server.close();
          await running.close();
        },
      };
    },
    lacks,
  );
}
