import type { Logger } from '@layercache/oci';
import { RegistryClient, type Registry } from '@layercache/registry';
import type { RegistryFactory } from './open-source.js';

/** One client a registry, so that connections and tokens are shared. */
export function registryClients(logger: Logger): RegistryFactory {
  const clients = new Map<string, Registry>();
  return (host) => {
    const client = clients.get(host) ?? new RegistryClient(host, { logger });
    clients.set(host, client);
    return client;
  };
}
