import { withAnnotations, type Descriptor } from '@layercache/oci';

/**
 * containerd's record of where a blob came from: one annotation a registry, with the repositories it was
 * seen in, comma-separated. From there it can be had again, or mounted.
 */
const PREFIX = 'containerd.io/distribution.source.';

/** @param origin registry and repository: `registry.example/team/app` */
export function withOrigin(descriptor: Descriptor, origin: string): Descriptor {
  const { registry, repository } = splitOrigin(origin);
  const name = `${PREFIX}${registry}`;
  const before = descriptor.annotations?.[name]?.split(',') ?? [];
  return withAnnotations(descriptor, { [name]: [...new Set([...before, repository])].sort().join(',') });
}

/** Repositories, on the registry that `origin` is on, which are said to have the blob. */
export function mountSources(descriptor: Descriptor, origin: string): string[] {
  return descriptor.annotations?.[`${PREFIX}${splitOrigin(origin).registry}`]?.split(',') ?? [];
}

/** Every place a blob is said to be at, as registry and repository. */
export function blobOrigins(descriptor: Descriptor): { registry: string; repository: string }[] {
  return Object.entries(descriptor.annotations ?? {}).flatMap(([name, value]) =>
    name.startsWith(PREFIX)
      ? value.split(',').map((repository) => ({ registry: name.slice(PREFIX.length), repository }))
      : [],
  );
}

function splitOrigin(origin: string): { registry: string; repository: string } {
  const slash = origin.indexOf('/');
  return { registry: origin.slice(0, slash), repository: origin.slice(slash + 1) };
}
