import { withAnnotations, type Descriptor } from '@layercache/oci';
import { isRegistryHost, isRepositoryName } from '@layercache/registry';

/**
 * containerd's record of where a blob came from: one annotation a registry, with the repositories it was
 * seen in, comma-separated. From there it can be had again, or mounted. It is what this machine saw, so it
 * neither travels with a cache nor is it believed when it comes with one: a cache index that names hosts could
 * send its readers anywhere.
 */
const PREFIX = 'containerd.io/distribution.source.';

/** Repositories of one registry that are remembered for a blob. */
const MAX_REPOSITORIES = 16;

/** A registry, and one repository of it. */
export interface BlobOrigin {
  readonly registry: string;
  readonly repository: string;
}

export function withOrigin(descriptor: Descriptor, { registry, repository }: BlobOrigin): Descriptor {
  const name = `${PREFIX}${registry}`;
  const before = descriptor.annotations?.[name]?.split(',') ?? [];
  if (before.includes(repository)) return descriptor;
  const kept = before.slice(0, MAX_REPOSITORIES - 1);
  return withAnnotations(descriptor, { [name]: [...kept, repository].sort().join(',') });
}

/** Repositories, on the registry that `origin` is on, which are noted to have the blob. */
export function mountSources(descriptor: Descriptor, { registry }: BlobOrigin): string[] {
  return blobOrigins(descriptor).flatMap((each) => (each.registry === registry ? [each.repository] : []));
}

/** Every place where this machine saw a blob. An annotation that names no registry and repository counts for nothing. */
export function blobOrigins(descriptor: Descriptor): BlobOrigin[] {
  return Object.entries(descriptor.annotations ?? {}).flatMap(([name, value]) =>
    isOriginAnnotation(name)
      ? value
          .split(',')
          .map((repository) => ({ registry: name.slice(PREFIX.length), repository }))
          .filter(isOrigin)
      : [],
  );
}

/** Whether the two are a host and a name that are safe to be made into a URL. */
function isOrigin({ registry, repository }: BlobOrigin): boolean {
  return isRegistryHost(registry) && isRepositoryName(repository);
}

export function isOriginAnnotation(name: string): boolean {
  return name.startsWith(PREFIX);
}

/** As people write it: `registry.example/team/app`. */
export function formatOrigin({ registry, repository }: BlobOrigin): string {
  return `${registry}/${repository}`;
}
