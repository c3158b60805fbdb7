import { isDigest, parseDigest, type Digest } from '@layercache/oci';
import { isRepositoryName, isTag } from '../reference.js';
import { RegistryError } from '../registry-error.js';

/** What a request is about: the endpoints of the distribution specification, without their methods. */
export type Route =
  | { readonly kind: 'version' }
  | { readonly kind: 'catalog' }
  | { readonly kind: 'blob'; readonly repository: string; readonly digest: Digest }
  | { readonly kind: 'uploads'; readonly repository: string }
  | { readonly kind: 'upload'; readonly repository: string; readonly id: string }
  | { readonly kind: 'manifest'; readonly repository: string; readonly reference: string }
  | { readonly kind: 'tags'; readonly repository: string }
  | { readonly kind: 'referrers'; readonly repository: string; readonly digest: Digest };

export type RouteKind = Route['kind'];

/** The last parts of a path say what it is; whatever stands before them is the repository's name. */
const PATTERNS: readonly (readonly [
  RegExp,
  'blob' | 'uploads' | 'upload' | 'manifest' | 'tags' | 'referrers',
])[] = [
  [/^\/v2\/(.+)\/blobs\/uploads\/?$/, 'uploads'],
  [/^\/v2\/(.+)\/blobs\/uploads\/([^/]+)$/, 'upload'],
  [/^\/v2\/(.+)\/blobs\/([^/]+)$/, 'blob'],
  [/^\/v2\/(.+)\/manifests\/([^/]+)$/, 'manifest'],
  [/^\/v2\/(.+)\/tags\/list$/, 'tags'],
  [/^\/v2\/(.+)\/referrers\/([^/]+)$/, 'referrers'],
];

/**
 * Reads the path of a request.
 *
 * @returns undefined for a path that is none of the specification's
 * @throws RegistryError with status 400 when the repository's name breaks the grammar, LayercacheError `DIGEST_INVALID`
 */
export function parseRoute(path: string): Route | undefined {
  if (path === '/v2/' || path === '/v2') return { kind: 'version' };
  if (path === '/v2/_catalog') return { kind: 'catalog' };
  for (const [pattern, kind] of PATTERNS) {
    const match = pattern.exec(path);
    if (match === null) continue;
    const repository = repositoryName(decode(match[1] ?? ''));
    const last = decode(match[2] ?? '');
    switch (kind) {
      case 'uploads':
      case 'tags':
        return { kind, repository };
      case 'upload':
        return { kind, repository, id: last };
      case 'manifest':
        return { kind, repository, reference: last };
      case 'blob':
      case 'referrers':
        return { kind, repository, digest: parseDigest(last) };
    }
  }
  return undefined;
}

/** @throws RegistryError with status 400 and `NAME_INVALID` */
export function repositoryName(name: string): string {
  if (isRepositoryName(name)) return name;
  throw invalid('NAME_INVALID', `${JSON.stringify(name.slice(0, 300))} is not a repository name`);
}

export function isManifestReference(reference: string): boolean {
  return isTag(reference) || isDigest(reference);
}

/** A request that breaks the specification's grammar. */
export function invalid(code: string, message: string, status = 400): RegistryError {
  return new RegistryError('REGISTRY', message, { status, reported: [{ code, message }] });
}

function decode(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    throw invalid('NAME_INVALID', `${JSON.stringify(part.slice(0, 300))} is not well-formed in a URL`);
  }
}
