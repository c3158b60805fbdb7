import { isLayercacheError, type Descriptor, type Digest, type Logger } from '@layercache/oci';
import type { IngestOptions, OciLayout } from '@layercache/layout';
import { parseReference, type Registry } from '@layercache/registry';
import type { MetricsRecorder } from '../metrics/metrics.js';
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
  /** Brings a blob here from where its descriptor says that it can be had. */
  readonly fetch: (blob: Descriptor, options: IngestOptions) => Promise<unknown>;
  /** What the entry of an image says of how long it stays. */
  readonly renew: (named: Descriptor) => Descriptor;
}

/** A repository as the upstream calls it, and in full. Docker Hub's short names included: `alpine` is `library/alpine`. */
export interface MirroredName {
  readonly repository: string;
  /** `docker.io/library/alpine` */
  readonly full: string;
}

/** @throws LayercacheError `REFERENCE_INVALID` */
export function mirroredName(host: string, name: string): MirroredName {
  const { registry, repository } = parseReference(`${host}/${name}`);
  return { repository, full: `${registry}/${repository}` };
}

/** That the cache cannot keep something is no reason not to hand it out. Any other error is thrown. */
export function passOn(logger: Logger, digest: Digest, error: unknown): void {
  if (!isLayercacheError(error, 'CACHE_FULL', 'STORAGE', 'LOCK_TIMEOUT')) throw error;
  logger.warn({ message: 'passed on without being kept', digest, error: error.message, code: error.code });
}
