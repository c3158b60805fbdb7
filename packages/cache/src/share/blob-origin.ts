import { withAnnotations, type Descriptor } from '@layercache/oci';
import { isRegistryHost, isRepositoryName } from '@layercache/registry';

/**
 * containerd's record of where a blob came from: one annotation a registry, with the repositories it was
 * seen in, comma-separated. From there it can be had again, or mounted. It is what this machine saw, so it
 * neither travels with a cache nor is it believed when it comes with one: a cache index that names hosts could
 * send its readers anywhere.
 */
const PREFIX = 'containerd.io/distribution.source.';

/** A registry, and one repository of it. */
export interface BlobOrigin {
  readonly registry: string;
  readonly repository: string;
}

/** @param origin registry and repository: `registry.example/team/app` */
export function withOrigin(descriptor: Descriptor, origin: string): Descriptor {
  const { registry, repository } = splitOrigin(origin);
  const name = `${PREFIX}${registry}`;
  const before = descriptor.annotations?.[name]?.split(',') ?? [];
  if (before.includes(repository)) return descriptor;
  return withAnnotations(descriptor, { [name]: [...before, repository].sort().join(',') });
}

export function withoutOrigins(descriptor: Descriptor): Descriptor {
  const names = Object.keys(descriptor.annotations ?? {}).filter(isOriginAnnotation);
  if (names.length === 0) return descriptor;
  return withAnnotations(descriptor, Object.fromEntries(names.map((name) => [name, undefined])));
}

/** Repositories, on the registry that `origin` is on, which are said to have the blob. */
export function mountSources(descriptor: Descriptor, origin: string): string[] {
  const value = descriptor.annotations?.[`${PREFIX}${splitOrigin(origin).registry}`];
  return value === undefined ? [] : repositoriesIn(value);
}

/** Every place a blob is said to be at. An annotation that names no host, or no repository, names no place. */
export function blobOrigins(descriptor: Descriptor): BlobOrigin[] {
  return Object.entries(descriptor.annotations ?? {}).flatMap(([name, value]) => {
    const registry = name.slice(PREFIX.length);
    if (!isOriginAnnotation(name) || !isRegistryHost(registry)) return [];
    return repositoriesIn(value).map((repository) => ({ registry, repository }));
  });
}

function repositoriesIn(value: string): string[] {
  return value.split(',').filter(isRepositoryName);
}

function isOriginAnnotation(name: string): boolean {
  return name.startsWith(PREFIX);
}

function splitOrigin(origin: string): BlobOrigin {
  const slash = origin.indexOf('/');
  return { registry: origin.slice(0, slash), repository: origin.slice(slash + 1) };
}
