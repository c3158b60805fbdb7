import {
  LayercacheError,
  MAX_MANIFEST_SIZE,
  isDigest,
  isLayercacheError,
  isManifestMediaType,
  parseDocument,
  refName,
  type Descriptor,
} from '@layercache/oci';
import type { OciLayout } from '@layercache/layout';
import { formatReference, parseReference, type FetchedManifest, type Registry } from '@layercache/registry';
import { z } from 'zod';
import type { MetricsRecorder } from '../metrics/metrics.js';
import { blobOrigins } from '../entries/origins.js';
import type { RegistryFactory } from '../sources/open-source.js';
import type { TagResolver } from '../tags/tag-resolver.js';

export interface PutManifestOptions {
  /** The name to keep it under, as in `add`. Default: none, it is found by its digest. */
  readonly name?: string | undefined;
  /** Default: the one that the document itself names. */
  readonly mediaType?: string | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** What a registry says of a manifest that is here. */
export interface ManifestValidation {
  /**
   * `current`: the registry has the same. `moved`: its tag means another by now, `remote`. `gone`: the registry does not
   * have it any more. The content of a digest cannot change, so it never is `moved`.
   */
  readonly state: 'current' | 'moved' | 'gone';
  readonly cached: Descriptor;
  readonly remote: Descriptor | undefined;
}

export interface ManifestCacheContext {
  readonly layout: OciLayout;
  /** The cache as a registry. */
  readonly registry: Registry;
  readonly registryOf: RegistryFactory;
  readonly tags: TagResolver;
  readonly metrics: MetricsRecorder;
  /** The manifest that a name or a digest means. */
  readonly image: (nameOrDigest: string) => Descriptor;
  /** Brings the blob of an entry here if it is not. */
  readonly fetch: (digest: string, signal: AbortSignal | undefined) => Promise<void>;
}

const typedSchema = z.looseObject({ mediaType: z.string() });

/** Image manifests and indexes, by name or digest. One that a digest names never expires: it cannot change. */
export class ManifestCache {
  readonly #context: ManifestCacheContext;

  constructor(context: ManifestCacheContext) {
    this.#context = context;
  }

  /** @throws LayercacheError `NOT_FOUND`, `DIGEST_MISMATCH` */
  async get(
    nameOrDigest: string,
    options: { readonly signal?: AbortSignal | undefined } = {},
  ): Promise<FetchedManifest> {
    const { layout, metrics, fetch } = this.#context;
    const { mediaType, digest, size } = this.#find(nameOrDigest);
    metrics.count((await layout.has(digest, size)) ? 'hits' : 'misses');
    await fetch(digest, options.signal);
    const bytes = await layout.readBytes(digest, { maxSize: MAX_MANIFEST_SIZE, ...options });
    metrics.count('bytesServed', bytes.length);
    return { descriptor: { mediaType, digest, size }, bytes };
  }

  /** Whether its bytes are on this disk. */
  async has(nameOrDigest: string): Promise<boolean> {
    try {
      const { digest, size } = this.#context.image(nameOrDigest);
      return await this.#context.layout.has(digest, size);
    } catch (error) {
      if (isLayercacheError(error, 'NOT_FOUND')) return false;
      throw error;
    }
  }

  /**
   * Stores a manifest whose parts are here already.
   *
   * @throws LayercacheError `NOT_FOUND` when a part is not here; `DOCUMENT_INVALID`; `USAGE` when it names no media type
   */
  async put(bytes: Uint8Array, options: PutManifestOptions = {}): Promise<Descriptor> {
    const mediaType = options.mediaType ?? parseDocument(typedSchema, bytes, 'the manifest').mediaType;
    if (!isManifestMediaType(mediaType)) {
      throw new LayercacheError(
        'USAGE',
        `${mediaType.slice(0, 200)} is no media type of a manifest or index`,
      );
    }
    const { name, signal } = options;
    if (name === undefined) return this.#context.registry.pushManifest('', mediaType, bytes, { signal });
    const { registry, repository, tag = 'latest' } = parseReference(name);
    return this.#context.registry.pushManifest(`${registry}/${repository}`, mediaType, bytes, {
      tag,
      signal,
    });
  }

  /**
   * Asks the registry by HEAD whether what is here is what it has. A digest alone is looked for where its image came
   * from; `registry/repository@digest` says where.
   *
   * @throws LayercacheError `NOT_FOUND` when it is not here; `UNSUPPORTED` when it came from no registry; what the
   *   registry says
   */
  async validate(
    reference: string,
    options: { readonly signal?: AbortSignal | undefined } = {},
  ): Promise<ManifestValidation> {
    const { mediaType, digest, size } = this.#find(isDigest(reference) ? reference : digestOrName(reference));
    const cached = { mediaType, digest, size };
    try {
      const remote = await this.#ask(reference, cached, options.signal);
      return { state: remote.digest === digest ? 'current' : 'moved', cached, remote };
    } catch (error) {
      if (isLayercacheError(error, 'NOT_FOUND')) return { state: 'gone', cached, remote: undefined };
      throw error;
    }
  }

  #ask(reference: string, cached: Descriptor, signal: AbortSignal | undefined): Promise<Descriptor> {
    const { tags, registryOf } = this.#context;
    const { registry, repository, digest } = isDigest(reference)
      ? this.#origin(cached)
      : parseReference(reference);
    if (digest !== undefined) return registryOf(registry).resolve(repository, digest, { signal });
    return tags.resolve(reference, { maxAge: 0, staleIfError: false, signal }).then((tag) => tag.descriptor);
  }

  /** Where a manifest came from: what its entries say, or the names that it has. */
  #origin({
    digest,
  }: Descriptor): Pick<ReturnType<typeof parseReference>, 'registry' | 'repository' | 'digest'> {
    const found = this.#context.layout.lookup(digest).map((entry) => entry.descriptor);
    const entries = found.filter((entry) => entry.digest === digest);
    const [origin] = entries.flatMap(blobOrigins);
    if (origin !== undefined) return { ...origin, digest };
    for (const entry of entries) {
      const name = refName(entry);
      if (name === undefined) continue;
      const { registry, repository } = parseReference(name);
      if (name.startsWith(`${registry}/`)) return { registry, repository, digest };
    }
    throw new LayercacheError(
      'UNSUPPORTED',
      `it is not known which registry ${digest} came from: name it as registry/repository@${digest}`,
    );
  }

  #find(nameOrDigest: string): Descriptor {
    try {
      return this.#context.image(nameOrDigest);
    } catch (error) {
      if (isLayercacheError(error, 'NOT_FOUND')) this.#context.metrics.count('misses');
      throw error;
    }
  }
}

/** What `registry/repository@digest` names here is its digest. */
function digestOrName(reference: string): string {
  const parsed = parseReference(reference);
  return parsed.digest ?? formatReference(parsed);
}
