import { LayercacheError, isDigest, type Digest } from '@layercache/oci';

/** A name of an image: `registry/repository:tag@digest`. */
export interface Reference {
  /** Host and port as people write it: `docker.io`, `registry.example:5000`. */
  readonly registry: string;
  readonly repository: string;
  readonly tag: string | undefined;
  readonly digest: Digest | undefined;
}

const DOCKER_HUB = 'docker.io';
const DEFAULT_TAG = 'latest';

/** Distribution specification, "Pulling manifests": the grammar of `<name>` and of a tag. */
const REPOSITORY = /^[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:\/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*$/;
const TAG = /^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$/;
const HOST =
  /^(?:(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?)(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*|\[[0-9A-Fa-f:]+\])(?::[0-9]{1,5})?$/;
/** Docker's limit for host and repository together. */
const MAX_NAME_LENGTH = 255;

export function isRepositoryName(name: string): boolean {
  return name.length <= MAX_NAME_LENGTH && REPOSITORY.test(name);
}

export function isTag(tag: string): boolean {
  return TAG.test(tag);
}

/** Whether a text is the host of a registry, with or without a port, and nothing else that a URL may hold. */
export function isRegistryHost(host: string): boolean {
  // The grammar takes addresses and ports that do not exist; the URL parser does not.
  return host.length <= MAX_NAME_LENGTH && HOST.test(host) && URL.canParse(`https://${host}/`);
}

/**
 * Reads a reference as Docker does: without a host it is on Docker Hub, without a tag or digest it is `latest`.
 *
 * @throws LayercacheError `REFERENCE_INVALID`
 */
export function parseReference(text: string): Reference {
  const fail = (why: string): never => {
    const shown = JSON.stringify(text.length > 300 ? `${text.slice(0, 300)}…` : text);
    throw new LayercacheError('REFERENCE_INVALID', `${shown} is not an image reference: ${why}`);
  };
  const [beforeDigest = '', digest, ...more] = text.split('@');
  if (more.length > 0) fail('it has more than one @');
  if (digest !== undefined && !isDigest(digest))
    fail(`${JSON.stringify(digest.slice(0, 100))} is not a digest`);
  const colon = beforeDigest.lastIndexOf(':');
  const hasTag = colon > beforeDigest.lastIndexOf('/');
  const name = hasTag ? beforeDigest.slice(0, colon) : beforeDigest;
  const tag = hasTag ? beforeDigest.slice(colon + 1) : undefined;
  if (tag !== undefined && !isTag(tag)) fail(`${JSON.stringify(tag.slice(0, 140))} is not a tag`);
  const { registry, repository } = splitHost(name);
  if (!isRegistryHost(registry)) fail(`${JSON.stringify(registry.slice(0, 100))} is not a host name`);
  if (!isRepositoryName(repository)) {
    fail(
      /[A-Z]/.test(repository)
        ? `the repository ${JSON.stringify(repository.slice(0, 100))} must be in lower case`
        : `${JSON.stringify(repository.slice(0, 100))} is not a repository name`,
    );
  }
  if (registry.length + 1 + repository.length > MAX_NAME_LENGTH)
    fail(`the name is longer than ${MAX_NAME_LENGTH} characters`);
  return {
    registry,
    repository,
    tag: tag ?? (digest === undefined ? DEFAULT_TAG : undefined),
    digest: digest as Digest | undefined,
  };
}

/** The first part is a host when it looks like one: `localhost`, or with a dot, a colon or a capital letter. */
function splitHost(name: string): { registry: string; repository: string } {
  const slash = name.indexOf('/');
  const first = slash === -1 ? '' : name.slice(0, slash);
  if (first !== '' && (first === 'localhost' || /[.:A-Z]/.test(first))) {
    const registry = ['docker.io', 'index.docker.io'].includes(first.toLowerCase()) ? DOCKER_HUB : first;
    return { registry, repository: officialName(registry, name.slice(slash + 1)) };
  }
  return { registry: DOCKER_HUB, repository: officialName(DOCKER_HUB, name) };
}

function officialName(registry: string, repository: string): string {
  return registry === DOCKER_HUB && !repository.includes('/') ? `library/${repository}` : repository;
}

/** The full name: `docker.io/library/alpine:3.20`. */
export function formatReference(reference: Reference): string {
  const { registry, repository, tag, digest } = reference;
  return `${registry}/${repository}${tag === undefined ? '' : `:${tag}`}${digest === undefined ? '' : `@${digest}`}`;
}

/** The names of Docker Hub: in references, in old configs of Docker, and where its registry answers. */
const DOCKER_HUB_HOSTS: readonly string[] = [DOCKER_HUB, 'index.docker.io', 'registry-1.docker.io'];

export function isDockerHub(registry: string): boolean {
  return DOCKER_HUB_HOSTS.includes(registry.toLowerCase());
}

/** Where the registry of that name answers: Docker Hub's is not at docker.io. */
export function apiHost(registry: string): string {
  return isDockerHub(registry) ? 'registry-1.docker.io' : registry;
}
