import { createServer, type IncomingMessage, type RequestListener, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { isLayercacheError, type LayercacheError } from '@layercache/oci';
import { expect } from 'chai';
import { noCredentials } from '../../src/client/credentials.js';
import { RegistryClient, type RegistryClientOptions } from '../../src/client/registry-client.js';
import { createRegistryServer, type RegistryServerOptions } from '../../src/server/registry-server.js';
import { RegistryError } from '../../src/registry-error.js';
import { MemoryRegistry } from '../../src/memory-registry.js';
import { memorySpools } from '../../src/server/upload-spool.js';

/** What the client sent, in order: `GET /v2/app/…`. */
export type Seen = { readonly line: string; readonly headers: IncomingMessage['headers'] }[];

/** Without waits that a test would have to sit through. */
export const impatient: RegistryClientOptions = {
  credentials: noCredentials,
  retry: { attempts: 3, delay: 1, maxDelay: 20 },
};

/** Runs `use` against a server of this machine that answers as the test likes. */
export async function scripted(
  handler: (request: IncomingMessage, response: ServerResponse) => void,
  use: (host: string, seen: Seen) => Promise<void>,
): Promise<void> {
  const seen: Seen = [];
  const listener: RequestListener = (request, response) => {
    seen.push({ line: `${request.method} ${request.url}`, headers: request.headers });
    handler(request, response);
  };
  const server = createServer(listener);
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  try {
    await use(`127.0.0.1:${(server.address() as AddressInfo).port}`, seen);
  } finally {
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  }
}

/** Runs `use` against our server over a registry in memory, with something before it. */
export async function fronted(
  wrap: NonNullable<RegistryServerOptions['wrap']>,
  use: (client: RegistryClient, registry: MemoryRegistry, host: string) => Promise<void>,
  options: RegistryClientOptions = {},
): Promise<void> {
  const registry = new MemoryRegistry();
  const server = createRegistryServer(registry, { wrap, openSpool: memorySpools() });
  await server.listen({ host: '127.0.0.1', port: 0 });
  try {
    const { host } = new URL(server.url);
    await use(new RegistryClient(host, { ...impatient, ...options }), registry, host);
  } finally {
    await server.close();
  }
}

/** The failure of `work`, which must be one of ours. */
export async function failureOf(work: Promise<unknown>): Promise<LayercacheError> {
  try {
    await work;
  } catch (error) {
    if (isLayercacheError(error)) return error;
    throw error;
  }
  return expect.fail('it did not fail');
}

/** The same, where the registry has answered. */
export async function refusalOf(work: Promise<unknown>): Promise<RegistryError> {
  const failure = await failureOf(work);
  if (failure instanceof RegistryError) return failure;
  throw failure;
}

export async function bytesOf(body: AsyncIterable<Uint8Array>): Promise<Buffer> {
  const chunks: Uint8Array[] = [];
  for await (const chunk of body) chunks.push(chunk);
  return Buffer.concat(chunks);
}

export function sendJson(
  response: ServerResponse,
  status: number,
  value: unknown,
  headers: Readonly<Record<string, string>> = {},
): void {
  response.writeHead(status, { 'content-type': 'application/json', ...headers });
  response.end(JSON.stringify(value));
}
