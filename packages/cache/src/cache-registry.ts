import {
  LayercacheError,
  MAX_MANIFEST_SIZE,
  digestOf,
  isDigest,
  isLayercacheError,
  isManifestMediaType,
  isNondistributable,
  parseDocument,
  isClaimedName,
  throwIfAborted,
  type Descriptor,
  type Digest,
} from '@layercache/oci';
import type { OciLayout } from '@layercache/layout';
import {
  isRepositoryName,
  referrerOf,
  subjectSchema,
  type ByteSource,
  type FetchBlobOptions,
  type FetchedBlob,
  type FetchedManifest,
  type ListOptions,
  type OpenSpool,
  type PushManifestOptions,
  type Registry,
  type RequestOptions,
} from '@layercache/registry';
import { Holds } from './policy/holds.js';
import { claimPairs, isImageConfig, parseManifest, readImageConfig } from './images/manifest.js';
import type { LayerCache } from './layer-cache.js';
import { entryOf } from './entries/entry.js';
import { CACHE_TAG } from './entries/names.js';
import type { ImageNames } from './images/image-names.js';
import { StagedUploads } from './staged-uploads.js';

export interface CacheRegistryContext {
  readonly cache: LayerCache;
  readonly layout: OciLayout;
  readonly names: ImageNames;
  /** How long the entry of an image says that it stays. */
  readonly renew: (named: Descriptor) => Descriptor;
  /** The entry to put for what a manifest says of a blob. */
  readonly settled: (entry: Descriptor, signal: AbortSignal | undefined) => Promise<Descriptor>;
}

/**
 * A cache as a registry. Images are found under the names they have in the cache (`docker.io/library/alpine:3.20`
 * is the tag `3.20` of the repository `docker.io/library/alpine`), and every blob under its digest in every
 * repository, a layer also under its diffID. The cache index itself is `layercache:latest`. A name that is only what a
 * shared cache says is no tag here.
 */
export class CacheRegistry implements Registry {
  readonly #cache: LayerCache;
  readonly #layout: OciLayout;
  readonly #context: CacheRegistryContext;
  readonly #uploads: StagedUploads;
  readonly openSpool: OpenSpool;

  /** @internal {@link LayerCache.registry} makes one. */
  constructor(context: CacheRegistryContext) {
    const uploads = new StagedUploads(context.layout);
    this.#cache = context.cache;
    this.#layout = context.layout;
    this.#context = context;
    this.#uploads = uploads;
    this.openSpool = uploads.openSpool;
  }

  async resolve(repository: string, reference: string): Promise<Descriptor> {
    const entry = await this.#findManifest(repository, reference);
    if (entry !== undefined) return { mediaType: entry.mediaType, digest: entry.digest, size: entry.size };
    throw new LayercacheError('NOT_FOUND', `${repository} has no manifest ${reference} in this cache`);
  }

  async fetchManifest(
    repository: string,
    reference: string,
    options: RequestOptions = {},
  ): Promise<FetchedManifest> {
    const descriptor = await this.resolve(repository, reference);
    const bytes = await this.#layout.readBytes(descriptor.digest, { maxSize: MAX_MANIFEST_SIZE, ...options });
    this.#cache.metrics.count('hits');
    this.#cache.metrics.count('bytesServed', bytes.length);
    return { descriptor, bytes };
  }

  async blobSize(
    _repository: string,
    digest: Digest,
    options: RequestOptions = {},
  ): Promise<number | undefined> {
    throwIfAborted(options.signal);
    const size = await this.#cache.blobSize(digest, options);
    if (size !== undefined) return size;
    // A diffID whose tar is not here yet: only decompressing tells its size, and it will be asked for next.
    try {
      const layer = await this.#cache.find(digest, options);
      if (layer.diffID !== digest) return undefined;
      (await layer.uncompressed({ ...options, keep: true })).destroy();
    } catch (error) {
      if (isLayercacheError(error, 'NOT_FOUND')) return undefined;
      throw error;
    }
    return this.#layout.blobSize(digest);
  }

  async fetchBlob(repository: string, digest: Digest, options: FetchBlobOptions = {}): Promise<FetchedBlob> {
    const size = await this.blobSize(repository, digest, options);
    if (size === undefined) throw new LayercacheError('NOT_FOUND', `blob ${digest} is not in this cache`);
    const { first = 0, last = size - 1 } = options.range ?? {};
    if (first === 0 && last >= size - 1)
      return { size, offset: 0, body: await this.#cache.blob(digest, options) };
    const body = await this.#cache.blob(digest, {
      start: first,
      end: Math.min(last + 1, size),
      signal: options.signal,
    });
    return { size, offset: first, body };
  }

  async pushBlob(
    _repository: string,
    descriptor: Pick<Descriptor, 'digest' | 'size'>,
    source: ByteSource,
    options: RequestOptions = {},
  ): Promise<void> {
    const { digest, size } = descriptor;
    // The bytes of an upload in chunks are in the layout by now.
    const staged = this.#uploads.of(source);
    if (staged === undefined) await this.#layout.write(source(), { digest, size, ...options });
    else await staged.commit({ digest, size });
  }

  /** Every repository has every blob. */
  async mountBlob(_repository: string, digest: Digest): Promise<boolean> {
    return (await this.#cache.blobSize(digest)) !== undefined;
  }

  async pushManifest(
    repository: string,
    mediaType: string,
    bytes: Uint8Array,
    options: PushManifestOptions = {},
  ): Promise<Descriptor> {
    const descriptor = { mediaType, digest: digestOf(bytes), size: bytes.length };
    const named =
      options.tag === undefined ? entryOf(descriptor) : this.#named(descriptor, repository, options.tag);
    using holds = new Holds(this.#layout);
    const parts = await this.#partsOf(descriptor, bytes, holds);
    const entries: Descriptor[] = [];
    for (const part of parts) entries.push(await this.#context.settled(part, options.signal));
    await this.#layout.write(bytes, {
      digest: descriptor.digest,
      size: descriptor.size,
      signal: options.signal,
    });
    await this.#layout.put([...entries, named]);
    return descriptor;
  }

  async tag(repository: string, digest: Digest, tag: string): Promise<void> {
    const descriptor = await this.resolve(repository, digest);
    await this.#layout.put(this.#named(descriptor, repository, tag));
  }

  async deleteManifest(repository: string, reference: string): Promise<void> {
    if (!isDigest(reference)) {
      const found = this.#nameOf(repository, reference);
      if (found === undefined) {
        throw new LayercacheError('NOT_FOUND', `${repository} has no tag ${reference} in this cache`);
      }
      await this.#layout.untag(found);
      return;
    }
    await this.resolve(repository, reference);
    await this.#layout.remove(reference);
  }

  async deleteBlob(_repository: string, digest: Digest): Promise<void> {
    if (!(await this.#layout.remove(digest))) {
      throw new LayercacheError('NOT_FOUND', `blob ${digest} is not in this cache`);
    }
  }

  async *tags(repository: string, options: ListOptions = {}): AsyncGenerator<string> {
    const names = new Set(this.#names(repository, ''));
    const tags = new Set<string>();
    for (const name of this.#served()) {
      const { prefix, tag } = splitName(name);
      if (names.has(`${prefix}:`) || withoutRegistry(prefix) === repository) tags.add(tag);
    }
    if (repository === CACHE_TAG && this.#layout.lookupTag(CACHE_TAG) !== undefined) tags.add('latest');
    if (tags.size === 0) {
      throw new LayercacheError('NOT_FOUND', `no image of ${repository} is in this cache`);
    }
    yield* after([...tags], options.after);
    await Promise.resolve();
  }

  async *repositories(options: ListOptions = {}): AsyncGenerator<string> {
    const found = new Set<string>();
    for (const name of this.#served()) {
      const { prefix } = splitName(name);
      found.add(isRepositoryName(prefix) ? prefix : withoutRegistry(prefix));
    }
    yield* after([...found], options.after);
    await Promise.resolve();
  }

  async *referrers(
    _repository: string,
    digest: Digest,
    options: RequestOptions & { readonly artifactType?: string } = {},
  ): AsyncGenerator<Descriptor> {
    const seen = new Set<Digest>();
    for (const { descriptor } of this.#layout.entries()) {
      if (!isManifestMediaType(descriptor.mediaType) || seen.has(descriptor.digest)) continue;
      seen.add(descriptor.digest);
      const bytes = await this.#layout.readBytes(descriptor.digest, { maxSize: MAX_MANIFEST_SIZE });
      const manifest = parseDocument(subjectSchema, bytes, `manifest ${descriptor.digest}`);
      if (manifest.subject?.digest !== digest) continue;
      const referrer = referrerOf(descriptor, manifest);
      if (options.artifactType === undefined || options.artifactType === referrer.artifactType)
        yield referrer;
    }
  }

  async #findManifest(repository: string, reference: string): Promise<Descriptor | undefined> {
    if (isDigest(reference)) {
      const entry = this.#layout
        .lookup(reference)
        .find(
          ({ descriptor }) => descriptor.digest === reference && isManifestMediaType(descriptor.mediaType),
        );
      if (entry !== undefined) return entry.descriptor;
      return this.#shard(reference);
    }
    const name = this.#nameOf(repository, reference);
    return name === undefined ? undefined : this.#context.names.served(name);
  }

  /** Names that somebody gave to this machine, in contrast to those that a shared cache claims. */
  *#served(): Generator<string> {
    for (const [name, { descriptor }] of this.#layout.tags()) if (!isClaimedName(descriptor)) yield name;
  }

  /**
   * The entry of an image that a client names. Pins and times that belong to the name stay with it.
   *
   * @throws LayercacheError `REFERENCE_INVALID`
   */
  #named(descriptor: Descriptor, repository: string, tag: string): Descriptor {
    if (repository === CACHE_TAG) {
      throw new LayercacheError(
        'REFERENCE_INVALID',
        `the repository ${CACHE_TAG} is the cache itself, and nothing can be pushed to it: choose another`,
      );
    }
    const { names, renew } = this.#context;
    return renew(names.given(descriptor, nameOf(repository, tag), 'the client'));
  }

  /** A shard of the cache index is a manifest that is no entry of its own. */
  async #shard(digest: Digest): Promise<Descriptor | undefined> {
    const index = this.#layout.lookupTag(CACHE_TAG)?.descriptor;
    if (index === undefined) return undefined;
    const parsed = parseManifest(
      index,
      await this.#layout.readBytes(index.digest, { maxSize: MAX_MANIFEST_SIZE }),
    );
    return parsed.kind === 'index'
      ? parsed.index.manifests.find((each) => each.digest === digest)
      : undefined;
  }

  /**
   * The name in the cache that a repository and a tag mean: itself, Docker Hub's short form of it, or the name
   * without its registry, since a host with a port cannot be part of a repository.
   */
  #nameOf(repository: string, tag: string): string | undefined {
    const { names } = this.#context;
    const exact = this.#names(repository, tag).find((name) => names.served(name) !== undefined);
    if (exact !== undefined) return exact;
    const wanted = nameOf(repository, tag);
    for (const name of this.#served()) if (withoutRegistry(name) === wanted) return name;
    return undefined;
  }

  /** Names in the cache that a repository and a tag can mean, Docker Hub's short forms included. */
  #names(repository: string, tag: string): string[] {
    if (repository === CACHE_TAG && tag === 'latest') return [CACHE_TAG];
    const repositories = [repository, `docker.io/${repository}`];
    if (!repository.includes('/')) repositories.push(`docker.io/library/${repository}`);
    return repositories.map((each) => nameOf(each, tag));
  }

  /**
   * What a manifest refers to, as entries.
   *
   * @throws LayercacheError `NOT_FOUND` when a part is not here, as distribution's registries demand
   */
  async #partsOf(descriptor: Descriptor, bytes: Uint8Array, holds: Holds): Promise<Descriptor[]> {
    const parsed = parseManifest(descriptor, bytes);
    if (parsed.kind === 'index') {
      for (const child of parsed.index.manifests) await this.resolve('', child.digest);
      return [];
    }
    const { config, layers } = parsed.manifest;
    const parts = [config, ...layers]
      .filter((part) => !isNondistributable(part.mediaType))
      .map((part) => entryOf(part));
    for (const part of parts) {
      if (await holds.hold(part)) continue;
      if ((await this.#cache.blobSize(part.digest)) === part.size) continue;
      throw new LayercacheError(
        'NOT_FOUND',
        `blob ${part.digest} of manifest ${descriptor.digest} is not in this cache: push it first`,
      );
    }
    if (!isImageConfig(config)) return parts;
    try {
      const document = readImageConfig(parsed.manifest, await this.#layout.readBytes(config.digest));
      const pairs = claimPairs(parsed.manifest, document, descriptor.digest);
      return [entryOf(config), ...pairs.filter((pair) => parts.some((part) => part.digest === pair.digest))];
    } catch (error) {
      // A registry takes any blob for a config. One that claims no pairs, or impossible ones, pairs nothing.
      if (isLayercacheError(error, 'DOCUMENT_INVALID', 'DIFFID_MISMATCH')) return parts;
      throw error;
    }
  }
}

function nameOf(repository: string, tag: string): string {
  return `${repository}:${tag}`;
}

function splitName(name: string): { prefix: string; tag: string } {
  const colon = name.lastIndexOf(':');
  return colon > name.lastIndexOf('/')
    ? { prefix: name.slice(0, colon), tag: name.slice(colon + 1) }
    : { prefix: name, tag: 'latest' };
}

function withoutRegistry(name: string): string {
  return name.slice(name.indexOf('/') + 1);
}

function after(names: readonly string[], start: string | undefined): string[] {
  return [...names].sort().filter((name) => start === undefined || name > start);
}
