import { LayercacheError } from '@layercache/oci';
import { parseReference } from '@layercache/registry';

/**
 * The name of a registry, as in a reference: `docker.io`, `registry.example:5000`, with `https://` or without.
 *
 * @throws LayercacheError `USAGE`
 */
export function upstreamHost(text: string): string {
  const host = text.replace(/^https?:\/\//, '').replace(/\/$/, '');
  try {
    const { registry } = parseReference(`${host}/name`);
    if (!host.includes('/') && (registry === host || host === 'index.docker.io')) return registry;
  } catch (error) {
    if (!(error instanceof LayercacheError)) throw error;
  }
  throw new LayercacheError(
    'USAGE',
    `${JSON.stringify(text.slice(0, 200))} is not a registry to mirror: expected a host such as docker.io or registry.example:5000`,
  );
}
