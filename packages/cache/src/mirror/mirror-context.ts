import { isLayercacheError, type Descriptor, type Digest, type Logger } from '@layercache/oci';
import type { OciLayout } from '@layercache/layout';
import { parseReference, type Registry } from '@layercache/registry';
import type { BlobOrigin } from '../entries/origins.js';
import type { ImageNames } from '../images/image-names.js';
import type { MetricsRecorder } from '../metrics/metrics.js';
import type { FetchOptions } from '../share/remote-blobs.js';
import type { TagResolver } from '../tags/tag-resolver.js';

export interface MirrorContext {
  readonly layout: OciLayout;
  /** The cache as a registry, which has what was fetched, and fetches the blobs of its entries. */
  readonly local: Registry;
  readonly upstream: Registry;
  readonly logger: Logger;
  /** As in a reference: `docker.io`, `registry.example:5000`. */
  readonly host: string;
  readonly tags: TagResolver;
  readonly metrics: MetricsRecorder;
  /** Brings a blob here from where this machine saw it, or from the place given. */
  readonly fetch: (blob: Descriptor, options: FetchOptions) => Promise<unknown>;
  /** The entry to put for what a manifest says of a blob. */
  readonly settled: (entry: Descriptor, signal: AbortSignal) => Promise<Descriptor>;
  readonly names: ImageNames;
  /** How long the entry of an image says that it stays. */
  readonly renew: (named: Descriptor) => Descriptor;
}

/** A repository as the upstream calls it, and in full. Docker Hub's short names included: `alpine` is `library/alpine`. */
export interface MirroredName {
  readonly repository: string;
  readonly origin: BlobOrigin;
  /** `docker.io/library/alpine` */
  readonly full: string;
}

/** @throws LayercacheError `REFERENCE_INVALID` */
export function mirroredName(host: string, name: string): MirroredName {
  const { registry, repository } = parseReference(`${host}/${name}`);
  return { repository, origin: { registry, repository }, full: `${registry}/${repository}` };
}

/** That the cache cannot keep something is no reason not to hand it out. Any other error is thrown. */
export function passOn(logger: Logger, digest: Digest, error: unknown): void {
  if (!isLayercacheError(error, 'CACHE_FULL', 'STORAGE', 'LOCK_TIMEOUT')) throw error;
  logger.warn({ message: 'passed on without being kept', digest, error: error.message, code: error.code });
}
