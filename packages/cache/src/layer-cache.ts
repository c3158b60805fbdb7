import type { Readable } from 'node:stream';
import {
  LayercacheError,
  errorFields,
  isLayercacheError,
  parseDigest,
  refName,
  silentLogger,
  type Descriptor,
  type Digest,
  type Logger,
} from '@layercache/oci';
import {
  OciLayout,
  cannotStore,
  indexStats,
  nodeFileSystem,
  verify,
  type Entry,
  type IndexStats,
  type VerifyReport,
} from '@layercache/layout';
import type { Registry } from '@layercache/registry';
import { ImageAdder, type AddOptions, type AddedImage } from './add-image.js';
import { CacheRegistry } from './cache-registry.js';
import { BlobAccess } from './content/blob-access.js';
import { BlobCache } from './content/blob-cache.js';
import { ManifestCache } from './content/manifest-cache.js';
import { collectImage } from './export/collect-image.js';
import { openTarget } from './export/open-target.js';
import { blobOrigins } from './entries/origins.js';
import { looksLikeDigest } from './entries/names.js';
import { unnamedImages } from './images/needed-by.js';
import { ImageNames, type NamedImage } from './images/image-names.js';
import type { ImageView, ReadFileOptions } from './indexes/image-view.js';
import { IndexStore } from './indexes/index-store.js';
import type { LayerIndexOptions } from './indexes/layer-indexer.js';
import {
  LayerIndexes,
  type IndexOptions,
  type IndexReport,
  type ViewOptions,
} from './indexes/layer-indexes.js';
import type { StoredLayerIndex } from './indexes/stored-index.js';
import { debugReport, type DebugReportOptions } from './insight/debug-report.js';
import { withImageCheck } from './insight/image-integrity.js';
import { cacheReport, type CacheReport } from './insight/report.js';
import { cacheStats, type CacheStats, type StatsOptions, type StatsSubject } from './insight/stats.js';
import type {
  BlobOptions,
  ExportOptions,
  FindOptions,
  LayerCacheOptions,
  VerifyCacheOptions,
} from './layer-cache-options.js';
import { isLayerDescriptor, layerNames, layerRecord, type LayerRecord } from './layer-record.js';
import { Layer } from './layer.js';
import { settledEntry } from './layers/claims.js';
import { meteredRegistries } from './metrics/metered-registry.js';
import { Metrics } from './metrics/metrics.js';
import { Mirror } from './mirror/mirror.js';
import { upstreamHost } from './mirror/upstream-host.js';
import { Pairing, type BlobSupply } from './pairing.js';
import { checkedLimits } from './policy/checked-limits.js';
import { Holds } from './policy/holds.js';
import type { PruneOptions, PruneReport } from './policy/prune.js';
import { Retention, type Reclaimable } from './policy/retention.js';
import { cacheLocation } from './share/cache-location.js';
import { cacheExtension, derivedBlobs } from './share/extension.js';
import { pullCache, type PullContext, type PullOptions, type PullResult } from './share/pull.js';
import { CachePusher, type PushContext, type PushOptions, type PushResult } from './share/push.js';
import { RemoteBlobs, type BlobState } from './share/remote-blobs.js';
import { RemoteMemory } from './share/remote-memory.js';
import { RemoteTier } from './share/remote-tier.js';
import { WriteBack } from './share/write-back.js';
import { openSource, type RegistryFactory } from './sources/open-source.js';
import { registryClients } from './sources/registry-clients.js';
import { tagFollowingSource } from './tags/tag-following-source.js';
import { DEFAULT_TAG_TTL, TagResolver } from './tags/tag-resolver.js';

/** A cache of container-image layers, which is an OCI image layout on disk. */
export class LayerCache {
  /** What this cache did. */
  readonly metrics: Metrics;
  /** What tags mean, and have meant. */
  readonly tags: TagResolver;
  readonly manifests: ManifestCache;
  /** Blobs of any kind. */
  readonly blobs: BlobCache;
  readonly #layout: OciLayout;
  readonly #options: LayerCacheOptions;
  readonly #logger: Logger;
  readonly #concurrency: number;
  readonly #keepUncompressed: boolean;
  readonly #pairing: Pairing;
  readonly #registryOf: RegistryFactory;
  readonly #blobs: RemoteBlobs;
  readonly #indexes: LayerIndexes;
  readonly #memory: RemoteMemory;
  readonly #tier: RemoteTier | undefined;
  readonly #writeBack: WriteBack | undefined;
  readonly #retention: Retention;
  readonly #names: ImageNames;
  readonly #access: BlobAccess;
  #closing: Promise<void> | undefined;

  private constructor(layout: OciLayout, options: LayerCacheOptions, metrics: Metrics) {
    this.metrics = metrics;
    this.#layout = layout;
    this.#names = new ImageNames(layout);
    this.#options = options;
    this.#logger = options.logger ?? silentLogger;
    this.#concurrency = options.concurrency ?? 4;
    this.#keepUncompressed = options.keepUncompressed ?? true;
    const indexStore = new IndexStore(layout, this.#supply, this.#logger);
    this.#pairing = new Pairing(layout, this.#supply, indexStore, this.#logger);
    this.#retention = new Retention(layout, options, this.#logger, metrics);
    this.#registryOf = meteredRegistries(options.registry ?? registryClients(this.#logger), metrics);
    this.#blobs = new RemoteBlobs(layout, this.#registryOf);
    this.#indexes = new LayerIndexes({
      layout,
      supply: this.#supply,
      blobs: this.#blobs,
      pairing: this.#pairing,
      store: indexStore,
      concurrency: this.#concurrency,
      image: (name) => this.image(name),
      find: (key, signal) => this.find(key, { signal }),
    });
    this.#memory = new RemoteMemory(layout);
    this.tags = new TagResolver({
      layout,
      registryOf: this.#registryOf,
      ttl: options.tagTTL ?? DEFAULT_TAG_TTL,
      staleIfError: options.staleIfError ?? false,
      logger: this.#logger,
      metrics,
    });
    this.manifests = new ManifestCache({
      layout,
      registry: this.registry(),
      registryOf: this.#registryOf,
      tags: this.tags,
      metrics,
      image: (name) => this.image(name),
      fetch: (digest, signal) => this.fetch(digest, { signal }),
    });
    this.blobs = new BlobCache({ layout, open: (digest, blobOptions) => this.blob(digest, blobOptions) });
    const { remote, writeBack = false } = options;
    if (remote !== undefined) {
      const location = cacheLocation(remote, this.#registryOf);
      this.#tier = new RemoteTier(layout, location, this.#memory, this.#logger);
      if (writeBack) this.#writeBack = new WriteBack(() => this.push(remote), this.#logger);
    } else if (writeBack) {
      throw new LayercacheError('USAGE', 'there is nothing to write back to: name a remote');
    }
    this.#access = new BlobAccess({ layout, remote: this.#blobs, tier: this.#tier, metrics });
  }

  /**
   * @throws LayercacheError `LAYOUT_INVALID` when the folder holds something else, `NOT_FOUND` with
   * `create: false`, `STORAGE`, `CACHE_FULL` when a limit is too low for an empty cache
   */
  static async open(dir: string, options: LayerCacheOptions = {}): Promise<LayerCache> {
    const logger = options.logger ?? silentLogger;
    let cache: LayerCache | undefined;
    const metrics = new Metrics(dir, logger);
    const layout = await OciLayout.open(dir, {
      create: options.create ?? true,
      repair: options.repair ?? false,
      durability: options.durability ?? 'process',
      files: options.files ?? nodeFileSystem,
      logger,
      extension: { ...cacheExtension(logger), isElsewhere: (entry) => blobOrigins(entry).length > 0 },
      limits: checkedLimits(options.limits, async (shortage) =>
        cache === undefined ? 'busy' : cache.#retention.makeRoom(shortage),
      ),
      onStored: (size) => {
        metrics.stored(size);
      },
    });
    metrics.keepIn(layout);
    try {
      cache = new LayerCache(layout, options, metrics);
      return cache;
    } catch (error) {
      await layout.close();
      throw error;
    }
  }

  get dir(): string {
    return this.#layout.dir;
  }

  /**
   * Adds an image with all its layers: from a registry, `oci:DIR[:name]`, `oci-archive:FILE[:name]` or
   * `docker-archive:FILE[:name]`. What is here already is not fetched; what was interrupted goes on.
   */
  add(source: string, options: AddOptions = {}): Promise<AddedImage> {
    return this.metrics.time('add', () => this.#add(source, options));
  }

  async #add(source: string, options: AddOptions): Promise<AddedImage> {
    this.#logger.info({ message: 'adding image', source });
    const opened = tagFollowingSource(await openSource(source, this.#registryOf), this.tags);
    try {
      const added = await new ImageAdder(this.#layout, opened, options, {
        concurrency: this.#concurrency,
        logger: this.#logger,
        pairing: this.#pairing,
        names: this.#names,
        renew: (named) => this.#retention.renew(named, options.ttl),
        metrics: this.metrics,
      }).add();
      await this.#layout.sync();
      this.#writeBack?.start();
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
      this.metrics.count('misses');
      throw new LayercacheError(
        'NOT_FOUND',
        `no layer ${key} is in the cache, neither by digest nor by diffID`,
      );
    }
    return this.#layerOf(record);
  }

  /**
   * The layer that a digest or a diffID names, here or at the remote.
   *
   * @throws LayercacheError `NOT_FOUND`, `DIGEST_INVALID`
   */
  find(digestOrDiffID: string, options: FindOptions = {}): Promise<Layer> {
    return this.metrics.time('find', async () => {
      const key = parseDigest(digestOrDiffID);
      if (layerRecord(this.#layout, key) === undefined) await this.#tier?.find(key, options.signal);
      return this.layer(key);
    });
  }

  /**
   * Makes the layer indexes of an image, or of one layer, that are not here yet. Each is made in one pass, which
   * proves digest and diffID, too.
   *
   * @param name an image by name or digest, or a layer by digest or diffID
   * @throws LayercacheError `NOT_FOUND`, `PLATFORM_NOT_FOUND`, `DIFFID_MISMATCH`, `COMPRESSION_INVALID`,
   * `ARCHIVE_INVALID`
   */
  index(name: string, options: IndexOptions = {}): Promise<IndexReport> {
    return this.#indexes.index(name, options);
  }

  /** The index of the layer that a digest or a diffID names, made when it is not here. */
  layerIndex(digestOrDiffID: string, options: LayerIndexOptions = {}): Promise<StoredLayerIndex> {
    return this.#indexes.layerIndex(digestOrDiffID, options);
  }

  /**
   * The files of an image, merged from the indexes of its layers, which are made where they are not here.
   *
   * @throws IntegrityError `DIFFID_MISMATCH` when the image claims a wrong diffID for a layer
   */
  view(image: string, options: ViewOptions = {}): Promise<ImageView> {
    return this.#indexes.view(image, options);
  }

  /** The contents of one file of an image. With many to read, keep the {@link view}. */
  openFile(image: string, path: string, options: ViewOptions = {}): Promise<Readable> {
    return this.#indexes.openFile(image, path, options);
  }

  /** Bytes `start` up to and without `end` of the tar of a layer, without decompressing more than the spans they are in. */
  readRange(
    digestOrDiffID: string,
    start: number,
    end: number,
    options: ReadFileOptions = {},
  ): Promise<Readable> {
    return this.#indexes.readRange(digestOrDiffID, start, end, options);
  }

  /**
   * Makes the SOCI index manifest of an image, for one platform, an entry of the cache: so that SOCI's snapshotter can
   * use the layer indexes. Resolves with its descriptor.
   */
  exportSoci(image: string, options: ViewOptions = {}): Promise<Descriptor> {
    return this.#indexes.exportSoci(image, options);
  }

  /** Whether the bytes of an entry are on this disk, can be fetched, or are gone. */
  blobState(descriptor: Descriptor): Promise<BlobState> {
    return this.#blobs.state(descriptor);
  }

  /** Whether a layer is known by this digest or diffID, or any other blob by this digest. */
  has(digest: string): boolean {
    const key = parseDigest(digest);
    // A layer index is found by the diffID of its layer, and is not the layer.
    return this.#layout
      .lookup(key)
      .some(({ descriptor }) => descriptor.digest === key || isLayerDescriptor(descriptor));
  }

  /** Every layer once: by its diffID where it is known, else by its digest. In order of those. */
  *layers(): Generator<Layer> {
    for (const name of layerNames(this.#layout)) {
      // What went since the iteration began is not listed.
      const record = layerRecord(this.#layout, name);
      if (record !== undefined) yield this.#layerOf(record);
    }
  }

  /** Named images, in the order of their names. */
  *images(): Generator<NamedImage> {
    yield* this.#names.all();
  }

  /**
   * Images that have no name (any more): a tag moved on, or the source gave none. They are removed by their digest.
   * Referrers, such as SOCI indexes, belong to the image that is their subject.
   */
  unnamedImages(): Promise<Descriptor[]> {
    return unnamedImages(this.#layout);
  }

  /** The entries that a digest or diffID names: what index.json says of it. */
  lookup(digestOrDiffID: string): readonly Entry[] {
    return this.#layout.lookup(parseDigest(digestOrDiffID));
  }

  /** Every entry of index.json, or those that a filter lets through. In order of their digests. */
  *entries(filter: (entry: Entry) => boolean = () => true): Generator<Entry> {
    for (const entry of this.#layout.entries()) if (filter(entry)) yield entry;
  }

  /** Every digest and diffID that {@link LayerCache.lookup} finds something under, once. */
  keys(): Iterable<Digest> {
    return this.#layout.keys();
  }

  /** How large index.json, the index map and the journal are, and how much each of them holds. */
  indexStats(): IndexStats {
    return indexStats(this.#layout);
  }

  /** Folds the journal into index.json and writes a new index map, whatever the old one looks like. */
  async compact(): Promise<IndexStats> {
    await this.#layout.rebuild();
    return this.indexStats();
  }

  /**
   * The manifest that a name or a digest means: the name as it stands in the cache, or any reference that
   * Docker would read as that name.
   *
   * @throws LayercacheError `NOT_FOUND`
   */
  image(nameOrDigest: string): Descriptor {
    return this.#names.get(nameOrDigest);
  }

  /**
   * Whether an image is found by a name that is only what a shared cache says. Whoever hands it out by that name should
   * say so.
   */
  isClaimedName(nameOrDigest: string): boolean {
    return this.#names.isClaimed(nameOrDigest);
  }

  /**
   * Any blob by its digest, whole and hashed on the way; fetched first when it is known and not here.
   *
   * @throws LayercacheError `NOT_FOUND`
   */
  blob(digest: string, options: BlobOptions = {}): Promise<Readable> {
    return this.#access.open(digest, options);
  }

  /** Brings the blob of an entry here if it is not. */
  fetch(digest: string, options: FindOptions = {}): Promise<void> {
    return this.#access.fetch(digest, options);
  }

  /** Bytes of a blob that is here or can be fetched; else undefined. */
  blobSize(digest: string, options: FindOptions = {}): Promise<number | undefined> {
    return this.#access.size(digest, options);
  }

  /**
   * Hands an image to other tools: `oci:DIR[:name]`, `oci-archive:FILE[:name]`, `docker-archive:FILE[:name]`.
   *
   * @throws LayercacheError `NOT_FOUND` when the image, or a part of it, is not in the cache
   */
  export(nameOrDigest: string, target: string, options: ExportOptions = {}): Promise<Descriptor> {
    return this.metrics.time('export', () => this.#export(nameOrDigest, target, options));
  }

  async #export(nameOrDigest: string, target: string, options: ExportOptions): Promise<Descriptor> {
    const descriptor = this.image(nameOrDigest);
    const opened = openTarget(target);
    const name = opened.name ?? refName(descriptor);
    const { signal, soci = false } = options;
    // Nothing of it is evicted before it is handed over.
    using holds = new Holds(this.#layout);
    const context = {
      layout: this.#layout,
      supply: (part: Descriptor, stop: AbortSignal | undefined) => holds.supply(this.#supply, part, stop),
      layerOf: (digest: Digest) => this.layer(digest),
      referrerOf: soci ? (each: Descriptor) => this.#indexes.sociIndex(each, { signal }) : undefined,
    };
    const image = await collectImage(context, descriptor, name, signal);
    await opened.target.write(image, signal);
    return descriptor;
  }

  /**
   * Keeps an image, with all it needs, whatever room is wanted, until it is unpinned. The pin belongs to the name and
   * stays with it when the name moves.
   *
   * @throws LayercacheError `NOT_FOUND`; `USAGE` for an image without a name
   */
  pin(name: string): Promise<void> {
    return this.#retention.setPin(this.image(name), true);
  }

  /** @throws LayercacheError `NOT_FOUND` */
  unpin(name: string): Promise<void> {
    return this.#retention.setPin(this.image(name), false);
  }

  /**
   * Removes what a name or a digest means, pinned or not: an image with all that no other needs, or a blob. An image
   * that has another name only loses this one. Resolves with whether there was anything.
   *
   * @param options.force remove a blob or manifest although an image needs it. Default false
   * @throws LayercacheError `USAGE` when an image needs it; `STORAGE` when it cannot be told whether one does
   */
  async remove(nameOrDigest: string, options: { readonly force?: boolean } = {}): Promise<boolean> {
    const named = this.#names.find(nameOrDigest);
    if (named !== undefined) return this.#retention.removeImage(named);
    if (!looksLikeDigest(nameOrDigest)) return false;
    return this.#retention.removeDigest(parseDigest(nameOrDigest), options.force ?? false);
  }

  /** Takes out what is over, what was not used for long, what nothing leads to, and what is too much. */
  prune(options: PruneOptions = {}): Promise<PruneReport> {
    return this.#retention.prune(options);
  }

  /** Bytes that could go, by what they are. */
  reclaimable(): Promise<Reclaimable> {
    return this.#retention.reclaimable();
  }

  /** Removes the name; the image stays until it is pruned. Resolves with whether there was one. */
  untag(name: string): Promise<boolean> {
    return this.#layout.untag(name);
  }

  /**
   * Sends the whole cache, or a selection of it, to `REGISTRY/REPOSITORY:TAG`, united with what is there.
   *
   * @throws LayercacheError `NOT_FOUND` when an image that is to be sent is not here; `ABORTED` when a removal
   * was not confirmed; `DOCUMENT_INVALID` when something else stands under the tag
   */
  push(target: string, options: PushOptions = {}): Promise<PushResult> {
    const context = { ...this.#sharing(target), image: (name: string) => this.image(name) };
    return this.metrics.time('push', () => new CachePusher(context, options).push());
  }

  /** Merges the whole cache at `REGISTRY/REPOSITORY:TAG` into this one. */
  pull(source: string, options: PullOptions = {}): Promise<PullResult> {
    return this.metrics.time('pull', () => pullCache(this.#sharing(source), options));
  }

  /** The cache as a registry: see {@link CacheRegistry}. */
  registry(): Registry {
    return new CacheRegistry({
      cache: this,
      layout: this.#layout,
      names: this.#names,
      renew: (named) => this.#retention.renew(named),
      settled: this.#settled,
    });
  }

  /**
   * A pull-through mirror of a registry, to put behind `createRegistryServer`: what is not here comes from there, and
   * stays. A tag is asked for there when its TTL is over.
   *
   * @param upstream its host: `docker.io`, `registry.example:5000`
   * @throws LayercacheError `USAGE`
   */
  mirror(upstream: string): Registry {
    const host = upstreamHost(upstream);
    return new Mirror({
      layout: this.#layout,
      local: this.registry(),
      upstream: this.#registryOf(host),
      host,
      logger: this.#logger,
      tags: this.tags,
      metrics: this.metrics,
      fetch: (blob, options) => this.#blobs.fetch(blob, options),
      names: this.#names,
      settled: this.#settled,
      renew: (named) => this.#retention.renew(named),
    }).registry();
  }

  /**
   * Checks everything the cache holds: every byte, every pair, and whether each image can be used. With `repair`, what
   * is broken is dropped or fetched again from where it came, and blobs that lost their entry are taken up.
   */
  verify(options: VerifyCacheOptions = {}): Promise<VerifyReport> {
    const run = async (): Promise<VerifyReport> => {
      const report = await verify(this.#layout, {
        ...options,
        files: this.#options.files ?? nodeFileSystem,
        concurrency: this.#concurrency,
        derived: derivedBlobs,
        isElsewhere: async (descriptor) => (await this.#blobs.state(descriptor)) !== 'missing',
        checkPair: (descriptor) => this.#pairing.diffID(descriptor, options.signal, false),
        refetch: async (descriptor) => {
          // The entry may have been dropped with the bytes.
          const origins = blobOrigins(descriptor);
          await this.#blobs.fetch(descriptor, { origins, signal: options.signal });
          return true;
        },
      });
      return withImageCheck(report, {
        layout: this.#layout,
        canBeHad: async (blob) => (await this.#blobs.state(blob)) !== 'missing',
        signal: options.signal,
      });
    };
    return this.metrics.time('verify', run);
  }

  /** The statistics, and an HTML page that shows them with a treemap. The page is whole: it asks for nothing. */
  report(options: StatsOptions = {}): Promise<CacheReport> {
    return cacheReport({ ...this.#subject, metrics: () => this.metrics.total() }, options);
  }

  /** One JSON document for a bug report, free of credentials and of names of people and machines. */
  debugReport(options: DebugReportOptions = {}): Promise<unknown> {
    const verify = (): Promise<VerifyReport> => this.verify({ signal: options.signal });
    const { metrics } = this;
    return debugReport({ ...this.#subject, options: this.#options, metrics, verify }, options);
  }

  /** What is in the cache and what it costs, counted on the disk. No blob counts as used for it. */
  stats(options: StatsOptions = {}): Promise<CacheStats> {
    return cacheStats(this.#subject, options);
  }

  /** Makes index.json, the map and the cache index say what is here. */
  sync(): Promise<void> {
    return this.#layout.sync();
  }

  /** Waits for what is written back, commits, and lets go of everything. */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    await this.#writeBack?.end();
    await this.#retention.close();
    this.tags.close();
    try {
      // What it writes is counted, too.
      await this.#commit();
      await this.metrics.close();
    } finally {
      await this.#layout.close();
    }
  }

  /**
   * Entries of others stay in the journal where a cache is full; those of this handle have the space they need. Where
   * nothing can be written, closing the layout fails if this cache put something, and only then.
   */
  async #commit(): Promise<void> {
    try {
      await this.#layout.sync();
    } catch (error) {
      if (!cannotStore(error) && !isLayercacheError(error, 'CACHE_FULL')) throw error;
      this.#logger.debug({ message: 'nothing committed', ...errorFields(error) });
    }
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  #layerOf(record: LayerRecord): Layer {
    return new Layer(
      {
        layout: this.#layout,
        pairing: this.#pairing,
        supply: this.#supply,
        keepUncompressed: this.#keepUncompressed,
        metrics: this.metrics,
      },
      record,
    );
  }

  get #subject(): StatsSubject {
    return { layout: this.#layout, reclaimable: () => this.reclaimable() };
  }

  #sharing(target: string): Omit<PushContext, 'image'> & PullContext {
    return {
      layout: this.#layout,
      location: cacheLocation(target, this.#registryOf),
      blobs: this.#blobs,
      memory: this.#memory,
      tags: this.tags,
      renew: (named) => this.#retention.renew(named),
      concurrency: this.#concurrency,
      logger: this.#logger,
      metrics: this.metrics,
    };
  }

  readonly #settled = (entry: Descriptor, signal: AbortSignal | undefined): Promise<Descriptor> =>
    settledEntry({ layout: this.#layout, pairing: this.#pairing, logger: this.#logger }, entry, { signal });

  readonly #supply: BlobSupply = async (descriptor, signal) => {
    await this.#blobs.fetch(descriptor, { signal });
  };
}
