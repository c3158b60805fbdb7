import {
  Annotation,
  LayercacheError,
  MAX_MANIFEST_SIZE,
  MediaType,
  SingleFlight,
  isDigest,
  isManifestMediaType,
  withAnnotations,
  type Descriptor,
  type Digest,
} from '@layercache/oci';
import type { IngestOptions, OciLayout } from '@layercache/layout';
import {
  forward,
  parseReference,
  readOnly,
  type FetchBlobOptions,
  type FetchedBlob,
  type FetchedManifest,
  type Registry,
  type RequestOptions,
} from '@layercache/registry';
import { countedStream } from '../metrics/counted-stream.js';
import type { MetricsRecorder } from '../metrics/metrics.js';
import { blobOrigins, withOrigin } from '../share/blob-origin.js';
import type { TagResolver } from '../tags/tag-resolver.js';
import { mirroredParts } from './mirrored-manifest.js';
import { PendingNames } from './pending-names.js';
import { upstreamError } from './upstream-error.js';

export interface MirrorContext {
  readonly layout: OciLayout;
  /** The cache as a registry, which has what was fetched, and fetches the blobs of its entries. */
  readonly local: Registry;
  readonly upstream: Registry;
  /** As in a reference: `docker.io`, `registry.example:5000`. */
  readonly host: string;
  readonly tags: TagResolver;
  readonly metrics: MetricsRecorder;
  /** Brings a blob here from where its descriptor says that it can be had. */
  readonly fetch: (blob: Descriptor, options: IngestOptions) => Promise<unknown>;
  /** What the entry of an image says of how long it stays. */
  readonly renew: (named: Descriptor) => Descriptor;
}

/**
 * A pull-through mirror of one registry: what the cache has comes from there, what it does not is fetched, kept, and
 * then handed out. Those who want the same thing at the same time share one fetch. A tag is asked for upstream when its
 * TTL is over, by HEAD; what a digest names never is again.
 */
export class Mirror {
  readonly #context: MirrorContext;
  readonly #fetches = new SingleFlight<FetchedManifest>();
  readonly #pending = new PendingNames();

  constructor(context: MirrorContext) {
    this.#context = context;
  }

  /** For readers. Lists (tags, repositories, referrers) are the upstream's. */
  registry(): Registry {
    const { local, upstream, host } = this.#context;
    const repositoryOf = (name: string): string => this.#name(name).repository;
    const mapped = async <T>(work: () => Promise<T>): Promise<T> => {
      try {
        return await work();
      } catch (error) {
        throw upstreamError(error, host);
      }
    };
    const mappedList = async function* <T>(list: () => AsyncIterable<T>): AsyncGenerator<T> {
      try {
        yield* list();
      } catch (error) {
        throw upstreamError(error, host);
      }
    };
    return readOnly({
      ...forward(local),
      resolve: (name, reference, options) => mapped(() => this.#resolve(name, reference, options)),
      fetchManifest: (name, reference, options) =>
        mapped(() => this.#fetchManifest(name, reference, options)),
      blobSize: (name, digest, options) => mapped(() => this.#blobSize(name, digest, options)),
      fetchBlob: (name, digest, options) => mapped(() => this.#fetchBlob(name, digest, options)),
      tags: (name, options) => mappedList(() => upstream.tags(repositoryOf(name), options)),
      repositories: (options) => mappedList(() => upstream.repositories(options)),
      referrers: (name, digest, options) =>
        mappedList(() => upstream.referrers(repositoryOf(name), digest, options)),
    });
  }

  async #resolve(name: string, reference: string, options: RequestOptions = {}): Promise<Descriptor> {
    const { tags, upstream } = this.#context;
    const { repository, prefix } = this.#name(name);
    if (isDigest(reference)) {
      return this.#known(reference) ?? upstream.resolve(repository, reference, options);
    }
    const full = `${prefix}:${reference}`;
    const { descriptor } = await tags.resolve(full, options);
    this.#pending.add(full, descriptor.digest);
    return descriptor;
  }

  async #fetchManifest(
    name: string,
    reference: string,
    options: RequestOptions = {},
  ): Promise<FetchedManifest> {
    const { layout, metrics } = this.#context;
    const digest = isDigest(reference) ? reference : (await this.#resolve(name, reference, options)).digest;
    const known = this.#known(digest);
    let manifest: FetchedManifest;
    if (known !== undefined && (await layout.has(digest, known.size))) {
      metrics.count('hits');
      metrics.count('bytesSaved', known.size);
      await this.#giveNames(known);
      const bytes = await layout.readBytes(digest, { maxSize: MAX_MANIFEST_SIZE, ...options });
      manifest = { descriptor: known, bytes };
    } else {
      metrics.count('misses');
      manifest = await this.#fetches.run(digest, options.signal, (signal) =>
        this.#bring(name, digest, signal),
      );
    }
    metrics.count('bytesServed', manifest.bytes.length);
    return manifest;
  }

  /** A manifest comes with the entries of what it refers to, so that a commit finds no manifest without its parts. */
  async #bring(name: string, digest: Digest, signal: AbortSignal): Promise<FetchedManifest> {
    const { layout, upstream, fetch } = this.#context;
    const { repository, prefix } = this.#name(name);
    const fetched = await upstream.fetchManifest(repository, digest, { signal });
    const { descriptor, bytes } = fetched;
    // What no other part of the cache could read is only passed on.
    if (!isManifestMediaType(descriptor.mediaType)) return fetched;
    const parts = await mirroredParts(descriptor, bytes, { layout, fetch, origin: prefix, signal });
    await layout.write(bytes, { digest, size: bytes.length, signal });
    const names = this.#pending.of(digest);
    const entry = withOrigin(descriptor, prefix);
    await layout.put([
      ...parts,
      ...(names.length === 0 ? [entry] : names.map((each) => this.#named(entry, each))),
    ]);
    this.#pending.drop(names);
    return fetched;
  }

  /** The manifest is here; what it was asked for by may be new. */
  async #giveNames(descriptor: Descriptor): Promise<void> {
    const { layout } = this.#context;
    const names = this.#pending.of(descriptor.digest);
    const fresh = names.filter((name) => layout.lookupTag(name)?.descriptor.digest !== descriptor.digest);
    await layout.put(fresh.map((name) => this.#named(descriptor, name)));
    this.#pending.drop(names);
  }

  #named(descriptor: Descriptor, name: string): Descriptor {
    const names = { [Annotation.refName]: name, [Annotation.containerdName]: name };
    return this.#context.renew(withAnnotations(descriptor, names));
  }

  async #blobSize(name: string, digest: Digest, options: RequestOptions = {}): Promise<number | undefined> {
    const { local, upstream } = this.#context;
    const { repository } = this.#name(name);
    return (await local.blobSize(name, digest, options)) ?? upstream.blobSize(repository, digest, options);
  }

  /** What is not here yet is handed out as it comes: a client need not wait for the last byte to get the first. */
  async #fetchBlob(name: string, digest: Digest, options: FetchBlobOptions = {}): Promise<FetchedBlob> {
    const { local, layout, metrics } = this.#context;
    const here = await layout.blobSize(digest);
    if (here !== undefined) metrics.count('bytesSaved', here);
    const known = this.#elsewhere(digest);
    // What no entry says where to get may be a diffID, whose tar the cache can make.
    if (
      here !== undefined ||
      (known === undefined && (await local.blobSize(name, digest, options)) !== undefined)
    ) {
      return local.fetchBlob(name, digest, options);
    }
    metrics.count('misses');
    const { descriptor, fetch } = await this.#absent(name, digest, known, options);
    const { size } = descriptor;
    const { range, signal } = options;
    if (range !== undefined) {
      await fetch({ signal });
      return local.fetchBlob(name, digest, options);
    }
    const body = await layout.readArriving({ digest, size }, fetch, { signal });
    countedStream(body, (count) => {
      metrics.count('bytesServed', count);
    });
    return { size, offset: 0, body };
  }

  /** A blob that is not here: as an entry says that it is, or the upstream. */
  async #absent(
    name: string,
    digest: Digest,
    known: Descriptor | undefined,
    { signal }: RequestOptions,
  ): Promise<{ descriptor: Descriptor; fetch: (options: IngestOptions) => Promise<unknown> }> {
    const { layout, upstream, fetch } = this.#context;
    const { repository, prefix } = this.#name(name);
    const size = known?.size ?? (await upstream.blobSize(repository, digest, { signal }));
    if (size === undefined) throw new LayercacheError('NOT_FOUND', `${prefix} has no blob ${digest}`);
    const descriptor = withOrigin(known ?? { mediaType: MediaType.octetStream, digest, size }, prefix);
    return {
      descriptor,
      fetch: async (options) => {
        await fetch(descriptor, options);
        if (known === undefined) await layout.put(descriptor);
      },
    };
  }

  /** The entry of a blob that says where to get it. */
  #elsewhere(digest: Digest): Descriptor | undefined {
    return this.#context.layout
      .lookup(digest)
      .map((entry) => entry.descriptor)
      .find((descriptor) => descriptor.digest === digest && blobOrigins(descriptor).length > 0);
  }

  #known(digest: Digest): Descriptor | undefined {
    const entry = this.#context.layout
      .lookup(digest)
      .find(({ descriptor }) => descriptor.digest === digest && isManifestMediaType(descriptor.mediaType));
    if (entry === undefined) return undefined;
    const { mediaType, size } = entry.descriptor;
    return { mediaType, digest, size };
  }

  /** Docker Hub's short names included: `alpine` is `library/alpine` there. */
  #name(name: string): { readonly repository: string; readonly prefix: string } {
    const { registry, repository } = parseReference(`${this.#context.host}/${name}`);
    return { repository, prefix: `${registry}/${repository}` };
  }
}
