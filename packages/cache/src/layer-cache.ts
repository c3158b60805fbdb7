import type { Readable } from 'node:stream';
import {
  Annotation,
  LayercacheError,
  isManifestMediaType,
  parseDigest,
  refName,
  silentLogger,
  withAnnotations,
  type Descriptor,
  type Digest,
  type Logger,
} from '@layercache/oci';
import { OciLayout, type Entry } from '@layercache/layout';
import { RegistryClient, formatReference, parseReference, type Registry } from '@layercache/registry';
import { ImageAdder, type AddOptions, type AddedImage } from './add-image.js';
import { CacheRegistry } from './cache-registry.js';
import { collectImage } from './export/collect-image.js';
import { openTarget } from './export/open-target.js';
import { isLayerDescriptor, layerRecord } from './layer-record.js';
import { Layer } from './layer.js';
import { Pairing } from './pairing.js';
import { CACHE_TAG } from './share/cache-index.js';
import { cacheExtension } from './share/extension.js';
import { pullCache, type PullOptions, type PullResult } from './share/pull.js';
import { CachePusher, type PushOptions, type PushResult } from './share/push.js';
import type { CacheLocation } from './share/remote-cache.js';
import { openSource, type RegistryFactory } from './sources/open-source.js';

export interface LayerCacheOptions {
  /** Create the cache when the folder does not exist or is empty. Default true. */
  readonly create?: boolean | undefined;
  /** Blobs under way at a time. Default 4. */
  readonly concurrency?: number | undefined;
  /** Whether a tar that had to be decompressed is kept as a blob. Default true. */
  readonly keepUncompressed?: boolean | undefined;
  /** `process`: what has resolved survives the death of this process. `fsync`: also power loss. Default `process`. */
  readonly durability?: 'process' | 'fsync' | undefined;
  readonly logger?: Logger | undefined;
  /** How to reach the registry of a host. Default: a {@link RegistryClient} each, with Docker's credentials. */
  readonly registry?: RegistryFactory | undefined;
}

export interface ExportOptions {
  readonly signal?: AbortSignal | undefined;
}

/** A cache of container-image layers, which is an OCI image layout on disk. */
export class LayerCache {
  readonly #layout: OciLayout;
  readonly #logger: Logger;
  readonly #concurrency: number;
  readonly #keepUncompressed: boolean;
  readonly #pairing: Pairing;
  readonly #registryOf: RegistryFactory;

  private constructor(layout: OciLayout, options: LayerCacheOptions) {
    this.#layout = layout;
    this.#logger = options.logger ?? silentLogger;
    this.#concurrency = options.concurrency ?? 4;
    this.#keepUncompressed = options.keepUncompressed ?? true;
    this.#pairing = new Pairing(layout, this.#supply, this.#logger);
    this.#registryOf = options.registry ?? registryClients(this.#logger);
  }

  /**
   * @throws LayercacheError `LAYOUT_INVALID` when the folder holds something else, `NOT_FOUND` with
   * `create: false`, `STORAGE`
   */
  static async open(dir: string, options: LayerCacheOptions = {}): Promise<LayerCache> {
    const logger = options.logger ?? silentLogger;
    const layout = await OciLayout.open(dir, {
      create: options.create ?? true,
      durability: options.durability ?? 'process',
      logger,
      extension: cacheExtension(logger),
    });
    return new LayerCache(layout, options);
  }

  get dir(): string {
    return this.#layout.dir;
  }

  /**
   * Adds an image with all its layers: from a registry, `oci:DIR[:name]`, `oci-archive:FILE[:name]` or
   * `docker-archive:FILE[:name]`. What is here already is not fetched; what was interrupted goes on.
   */
  async add(source: string, options: AddOptions = {}): Promise<AddedImage> {
    const opened = await openSource(source, this.#registryOf);
    try {
      const added = await new ImageAdder(this.#layout, opened, options, {
        concurrency: this.#concurrency,
        logger: this.#logger,
        pairing: this.#pairing,
      }).add();
      await this.#layout.sync();
      this.#logger.info({
        message: 'image added',
        name: added.name,
        digest: added.descriptor.digest,
        layers: added.layers.length,
        fetched: added.fetched,
        reused: added.reused,
      });
      return added;
    } finally {
      await opened.close();
    }
  }

  /**
   * The layer that a digest or a diffID names.
   *
   * @throws LayercacheError `NOT_FOUND`, `DIGEST_INVALID`
   */
  layer(digestOrDiffID: string): Layer {
    const key = parseDigest(digestOrDiffID);
    const record = layerRecord(this.#layout, key);
    if (record === undefined) {
      throw new LayercacheError(
        'NOT_FOUND',
        `no layer ${key} is in the cache, neither by digest nor by diffID`,
      );
    }
    return new Layer(
      {
        layout: this.#layout,
        pairing: this.#pairing,
        supply: this.#supply,
        keepUncompressed: this.#keepUncompressed,
      },
      record,
    );
  }

  /** Whether a layer is known by this digest or diffID, or any other blob by this digest. */
  has(digest: string): boolean {
    return this.#layout.lookup(parseDigest(digest)).length > 0;
  }

  /** Every layer once: by its diffID where it is known, else by its digest. In order of those. */
  *layers(): Generator<Layer> {
    const seen = new Set<Digest>();
    for (const { descriptor } of this.#layout.entries()) {
      if (!isLayerDescriptor(descriptor)) continue;
      const layer = this.layer(descriptor.digest);
      const name = layer.diffID ?? descriptor.digest;
      if (seen.has(name)) continue;
      seen.add(name);
      yield layer.key === name ? layer : this.layer(name);
    }
  }

  /** Named images, in the order of their names. */
  *images(): Generator<{ readonly name: string; readonly descriptor: Descriptor }> {
    const named = [...this.#layout.tags()].filter(([name]) => name !== CACHE_TAG);
    for (const [name, { descriptor }] of named.sort(([a], [b]) => (a < b ? -1 : 1)))
      yield { name, descriptor };
  }

  /** The entries that a digest or diffID names: what index.json says of it. */
  lookup(digestOrDiffID: string): readonly Entry[] {
    return this.#layout.lookup(parseDigest(digestOrDiffID));
  }

  /** Every entry of index.json. */
  entries(): Iterable<Entry> {
    return this.#layout.entries();
  }

  /**
   * The manifest that a name or a digest means: the name as it stands in the cache, or any reference that
   * Docker would read as that name.
   *
   * @throws LayercacheError `NOT_FOUND`
   */
  image(nameOrDigest: string): Descriptor {
    const exact = this.#layout.lookupTag(nameOrDigest) ?? this.#layout.lookupTag(canonicalName(nameOrDigest));
    if (exact !== undefined) return exact.descriptor;
    if (/^sha(256|512):/.test(nameOrDigest)) {
      const found = this.#layout
        .lookup(parseDigest(nameOrDigest))
        .find((entry) => isManifestMediaType(entry.descriptor.mediaType));
      if (found !== undefined) return withAnnotations(found.descriptor, { [Annotation.refName]: undefined });
    }
    throw new LayercacheError(
      'NOT_FOUND',
      `no image "${nameOrDigest}" is in the cache: layercache ls --images lists them`,
    );
  }

  /**
   * Any blob by its digest, whole and hashed on the way.
   *
   * @throws LayercacheError `NOT_FOUND`
   */
  async blob(digest: string, options: { readonly signal?: AbortSignal | undefined } = {}): Promise<Readable> {
    const key = parseDigest(digest);
    if ((await this.#layout.blobSize(key)) === undefined) {
      throw new LayercacheError('NOT_FOUND', `blob ${key} is not in the cache`);
    }
    return this.#layout.read(key, options);
  }

  /**
   * Hands an image to other tools: `oci:DIR[:name]`, `oci-archive:FILE[:name]`, `docker-archive:FILE[:name]`.
   *
   * @throws LayercacheError `NOT_FOUND` when the image, or a part of it, is not in the cache
   */
  async export(nameOrDigest: string, target: string, options: ExportOptions = {}): Promise<Descriptor> {
    const descriptor = this.image(nameOrDigest);
    const opened = openTarget(target);
    const name = opened.name ?? refName(descriptor);
    const image = await collectImage(
      this.#layout,
      (digest) => this.layer(digest),
      descriptor,
      name,
      options.signal,
    );
    await opened.target.write(image, options.signal);
    return descriptor;
  }

  /** Removes the name; the image stays until it is pruned. Resolves with whether there was one. */
  untag(name: string): Promise<boolean> {
    return this.#layout.untag(name);
  }

  /** Sends the whole cache to `REGISTRY/REPOSITORY:TAG`, united with what is there. */
  async push(target: string, options: PushOptions = {}): Promise<PushResult> {
    const location = this.#locate(target);
    const context = { layout: this.#layout, location, concurrency: this.#concurrency, logger: this.#logger };
    const result = await new CachePusher(context, options).push();
    this.#logger.info({ message: 'cache pushed', ...result });
    return result;
  }

  /** Merges the whole cache at `REGISTRY/REPOSITORY:TAG` into this one. */
  pull(source: string, options: PullOptions = {}): Promise<PullResult> {
    const context = {
      layout: this.#layout,
      location: this.#locate(source),
      concurrency: this.#concurrency,
      logger: this.#logger,
    };
    return pullCache(context, options);
  }

  /** The cache as a registry: see {@link CacheRegistry}. */
  registry(): Registry {
    return new CacheRegistry(this, this.#layout);
  }

  /** Makes index.json, the map and the cache index say what is here. */
  sync(): Promise<void> {
    return this.#layout.sync();
  }

  close(): Promise<void> {
    return this.#layout.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  #locate(target: string): CacheLocation {
    const reference = parseReference(target);
    if (reference.digest !== undefined || reference.tag === undefined) {
      throw new LayercacheError('REFERENCE_INVALID', `${target}: a cache is pushed to and pulled from a tag`);
    }
    return {
      registry: this.#registryOf(reference.registry),
      repository: reference.repository,
      tag: reference.tag,
      name: formatReference(reference),
    };
  }

  readonly #supply = async (descriptor: Descriptor): Promise<void> => {
    if (await this.#layout.has(descriptor.digest, descriptor.size)) return;
    throw new LayercacheError(
      'NOT_FOUND',
      `blob ${descriptor.digest} is not in the cache any more: add its image again`,
    );
  };
}

function canonicalName(name: string): string {
  try {
    return formatReference(parseReference(name));
  } catch {
    return name;
  }
}

/** One client a registry, so that connections and tokens are shared. */
function registryClients(logger: Logger): RegistryFactory {
  const clients = new Map<string, Registry>();
  return (host) => {
    const client = clients.get(host) ?? new RegistryClient(host, { logger });
    clients.set(host, client);
    return client;
  };
}
