import { LayercacheError } from '@layercache/oci';
import { formatReference, parseReference } from '@layercache/registry';
import type { RegistryFactory } from '../sources/open-source.js';
import type { CacheLocation } from './remote-cache.js';

/**
 * Where `REGISTRY/REPOSITORY:TAG` is.
 *
 * @throws LayercacheError `REFERENCE_INVALID`
 */
export function cacheLocation(target: string, registryOf: RegistryFactory): CacheLocation {
  const reference = parseReference(target);
  if (reference.digest !== undefined || reference.tag === undefined) {
    throw new LayercacheError('REFERENCE_INVALID', `${target}: a cache is pushed to and pulled from a tag`);
  }
  return {
    registry: registryOf(reference.registry),
    repository: reference.repository,
    tag: reference.tag,
    name: formatReference(reference),
    origin: { registry: reference.registry, repository: reference.repository },
  };
}
