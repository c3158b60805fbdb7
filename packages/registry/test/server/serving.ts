import { createRegistryServer, type RegistryServerOptions } from '../../src/server/registry-server.js';
import { MemoryRegistry } from '../../src/memory-registry.js';
import type { Registry } from '../../src/registry.js';

/** Runs `use` against a server on a free port of this machine, and closes it whatever happens. */
export async function serving(
  use: (url: string, registry: Registry) => Promise<void>,
  options: RegistryServerOptions & { readonly registry?: Registry } = {},
): Promise<void> {
  const { registry = new MemoryRegistry(), ...rest } = options;
  const server = createRegistryServer(registry, rest);
  await server.listen({ host: '127.0.0.1', port: 0 });
  try {
    await use(server.url, registry);
  } finally {
    await server.close();
  }
}

/** The code of the first error in a body (distribution specification, "Error Codes"). */
export async function errorCode(response: Response): Promise<string | undefined> {
  const body = (await response.json()) as { errors: { code: string; message: string }[] };
  return body.errors[0]?.code;
}

export async function bytesOf(response: Response): Promise<Buffer> {
  return Buffer.from(await response.arrayBuffer());
}
