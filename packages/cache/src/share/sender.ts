import {
  LayercacheError,
  MAX_MANIFEST_SIZE,
  digestAlgorithm,
  isLayercacheError,
  refName,
  type Descriptor,
  type Digest,
  type Logger,
} from '@layercache/oci';
import type { OciLayout } from '@layercache/layout';
import { mountSources } from '../entries/origins.js';
import type { CacheIndex } from './cache-index.js';
import { eachOf } from './each.js';
import { Holds } from '../policy/holds.js';
import type { ImagePartsReader } from './image-parts.js';
import { pushManifest } from './push-manifest.js';
import type { RemoteBlobs } from './remote-blobs.js';
import type { CacheLocation, RemoteCache } from './remote-cache.js';
import { skippedPart, type SkippedPart } from './skipped-part.js';

export interface PushProgress {
  readonly descriptor: Descriptor;
  readonly state: 'sending' | 'sent' | 'mounted' | 'present';
}

export interface SenderContext {
  readonly layout: OciLayout;
  readonly location: CacheLocation;
  readonly blobs: RemoteBlobs;
  readonly parts: ImagePartsReader;
  readonly concurrency: number;
  readonly logger: Logger;
}

export interface SenderOptions {
  /** Find out what would be sent, and send nothing. */
  readonly dryRun?: boolean | undefined;
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: ((progress: PushProgress) => void) | undefined;
}

/** Bytes. To send a blob of this size takes two requests, to ask for it one, and most that are new are not there. */
const NOT_WORTH_ASKING = 16 * 1024;
/** A repository that refused so many mounts and granted none is not asked again. */
const MAX_REFUSALS = 3;

/** Sends what a repository does not have: blobs, then the manifests that refer to them. */
export class CacheSender {
  readonly tally = { blobs: 0, bytes: 0, mounted: 0, present: 0 };
  readonly #context: SenderContext;
  readonly #options: SenderOptions;
  /** Blobs and manifests known to be in the repository. */
  readonly #there = new Set<Digest>();
  /** By repository: mounts refused in a row; negative once one was granted. */
  readonly #refusals = new Map<string, number>();
  /** Listed in the repository, and not in it. */
  readonly #lost = new Set<Digest>();
  /** What the registry refused, or nobody has any more. */
  readonly #skipped = new Map<Digest, SkippedPart>();
  /** Whether an image and everything below it can be sent, as found in this round. */
  #complete = new Map<Digest, Promise<boolean>>();

  constructor(context: SenderContext, options: SenderOptions) {
    this.#context = context;
    this.#options = options;
  }

  /** What a cache index lists is in its repository, unless it was found not to be. */
  remember({ entries, images, indexes }: RemoteCache): void {
    const documents = indexes.flatMap((index) => [index, ...index.shards]);
    const listed = [...entries, ...images, ...indexes.flatMap((index) => index.configs)];
    for (const { digest } of [...documents.map((document) => document.descriptor), ...listed]) {
      if (!this.#lost.has(digest)) this.#there.add(digest);
    }
  }

  /** Notes that the repository does not have something although it is listed there: it is sent again. */
  forget(lost: Iterable<Digest>): void {
    for (const digest of lost) {
      this.#lost.add(digest);
      this.#there.delete(digest);
    }
  }

  /** What the repository was found not to have, and has not been sent since. */
  get lost(): ReadonlySet<Digest> {
    return this.#lost;
  }

  /** What the registry refused is tried once more. */
  retry(): void {
    this.#skipped.clear();
  }

  /** What could not be sent, so that it is not in the cache index either. */
  get skipped(): readonly SkippedPart[] {
    return [...this.#skipped.values()];
  }

  isSkipped({ digest }: Pick<Descriptor, 'digest'>): boolean {
    return this.#skipped.has(digest);
  }

  /** Images that are there, or whose every part can be sent. One with a part missing would be refused. */
  async sendable(images: readonly Descriptor[]): Promise<Descriptor[]> {
    this.#complete = new Map();
    const complete: Descriptor[] = [];
    for (const image of images) {
      if (this.isSkipped(image)) continue;
      if (this.#there.has(image.digest) || (await this.#isComplete(image))) complete.push(image);
      else {
        this.#context.logger.warn({
          message: 'image not pushed: parts of it are not in the cache',
          digest: image.digest,
          name: refName(image),
        });
      }
    }
    return complete;
  }

  /** @returns false when something had to be skipped */
  async sendBlobs(entries: readonly Descriptor[], images: readonly Descriptor[]): Promise<boolean> {
    const before = this.#skipped.size;
    const wanted = new Map(entries.map((entry) => [entry.digest, entry] as const));
    for (const image of images) {
      if (this.#there.has(image.digest)) continue;
      for (const blob of (await this.#context.parts.of(image)).blobs) {
        if (!wanted.has(blob.digest)) wanted.set(blob.digest, blob);
      }
    }
    const missing = [...wanted.values()].filter((blob) => !this.#there.has(blob.digest));
    await this.#each(missing, (blob) => this.#unlessRefused(blob, () => this.#sendBlob(blob)));
    return this.#skipped.size === before;
  }

  /**
   * Sends manifests of images, before the index that names them.
   *
   * @returns false when something had to be skipped
   */
  async sendImages(images: readonly Descriptor[]): Promise<boolean> {
    if (this.#options.dryRun === true) return true;
    const before = this.#skipped.size;
    for (const image of images) await this.#unlessRefused(image, () => this.#sendImage(image));
    return this.#skipped.size === before;
  }

  /** One part that the registry refuses, or that nobody has, is skipped and named; the others go on. */
  async #unlessRefused(part: Descriptor, send: () => Promise<void>): Promise<void> {
    try {
      await send();
    } catch (error) {
      const skipped = skippedPart(part, error);
      this.#skipped.set(part.digest, skipped);
      const { message, ...fields } = skipped;
      this.#context.logger.warn({ message: 'part of the cache not pushed', ...fields, error: message });
    }
  }

  /** Sends shards, after the blobs and images that they list. */
  async sendShards(index: CacheIndex): Promise<void> {
    if (this.#options.dryRun === true) return;
    const { registry, repository } = this.#context.location;
    const { signal } = this.#options;
    const fresh = index.shards.filter((shard) => !this.#there.has(shard.descriptor.digest));
    await this.#each(fresh, async ({ config, descriptor, bytes }) => {
      if (!this.#there.has(config.descriptor.digest)) {
        if ((await registry.blobSize(repository, config.descriptor.digest, { signal })) === undefined)
          await registry.pushBlob(repository, config.descriptor, () => [config.bytes], { signal });
        this.#sent(config.descriptor);
      }
      await pushManifest(registry, repository, { descriptor, bytes }, { signal });
      this.#sent(descriptor);
    });
    for (const { descriptor, bytes } of index.imageShards) {
      if (this.#there.has(descriptor.digest)) continue;
      await pushManifest(registry, repository, { descriptor, bytes }, { signal });
      this.#sent(descriptor);
    }
  }

  #isComplete(image: Descriptor): Promise<boolean> {
    const known = this.#complete.get(image.digest) ?? this.#checkComplete(image);
    this.#complete.set(image.digest, known);
    return known;
  }

  async #checkComplete(image: Descriptor): Promise<boolean> {
    const { layout, parts, blobs } = this.#context;
    if (this.isSkipped(image) || !(await layout.has(image.digest, image.size))) return false;
    const found = await parts.of(image);
    for (const blob of found.blobs) {
      if (this.#there.has(blob.digest)) continue;
      if (this.isSkipped(blob) || (await blobs.state(blob)) === 'missing') return false;
    }
    for (const child of found.manifests) {
      if (!this.#there.has(child.digest) && !(await this.#isComplete(child))) return false;
    }
    return true;
  }

  async #sendBlob(blob: Descriptor): Promise<void> {
    const state = await this.#bring(blob);
    this.#sent(blob);
    if (state === 'mounted') this.tally.mounted += 1;
    else if (state === 'present') this.tally.present += 1;
    else {
      this.tally.blobs += 1;
      this.tally.bytes += blob.size;
    }
    this.#options.onProgress?.({ descriptor: blob, state });
  }

  async #bring(blob: Descriptor): Promise<'mounted' | 'present' | 'sent'> {
    const { registry, repository } = this.#context.location;
    const { signal, onProgress, dryRun = false } = this.#options;
    const { layout, blobs } = this.#context;
    if (!dryRun && (await this.#mount(blob))) return 'mounted';
    if (dryRun || blob.size > NOT_WORTH_ASKING || !(await layout.has(blob.digest, blob.size))) {
      if ((await registry.blobSize(repository, blob.digest, { signal })) !== undefined) return 'present';
    }
    if (dryRun) return 'sent';
    onProgress?.({ descriptor: blob, state: 'sending' });
    // It may be wanted more than once, when a connection breaks.
    using holds = new Holds(layout);
    const supply = async (): Promise<void> => {
      await blobs.fetch(blob, { signal }).catch((error: unknown) => {
        throw asLost(error);
      });
    };
    await holds.supply(supply, blob, signal);
    await registry.pushBlob(repository, blob, () => layout.read(blob.digest, { signal }), { signal });
    return 'sent';
  }

  /** A mount of what is there is granted, too: so it need not be asked for first. */
  async #mount(blob: Descriptor): Promise<boolean> {
    const { registry, repository, origin } = this.#context.location;
    for (const from of mountSources(this.#known(blob), origin)) {
      const refused = this.#refusals.get(from) ?? 0;
      if (from === repository || refused >= MAX_REFUSALS) continue;
      const options = { signal: this.#options.signal };
      if (await registry.mountBlob(repository, blob.digest, from, options)) {
        this.#refusals.set(from, -Infinity);
        return true;
      }
      this.#refusals.set(from, refused + 1);
    }
    return false;
  }

  /** The entry in the layout: what travels does not say where it came from. */
  #known(blob: Descriptor): Descriptor {
    const entry = this.#context.layout
      .lookup(blob.digest)
      .find(({ descriptor }) => descriptor.digest === blob.digest);
    return entry?.descriptor ?? blob;
  }

  async #sendImage(image: Descriptor): Promise<void> {
    if (this.#there.has(image.digest)) return;
    const { layout, parts, location } = this.#context;
    if (digestAlgorithm(image.digest) !== 'sha256') {
      throw new LayercacheError(
        'UNSUPPORTED',
        `manifest ${image.digest} is not pushed: registries store a manifest by its sha256 digest, and an index that lists this one by another would lead nowhere`,
      );
    }
    for (const child of (await parts.of(image)).manifests) await this.#sendImage(child);
    const bytes = await layout.readBytes(image.digest, { maxSize: MAX_MANIFEST_SIZE });
    const { signal } = this.#options;
    await pushManifest(location.registry, location.repository, { descriptor: image, bytes }, { signal });
    this.#sent(image);
  }

  #sent({ digest }: Descriptor): void {
    this.#there.add(digest);
    this.#lost.delete(digest);
  }

  async #each<T>(items: readonly T[], work: (item: T) => Promise<void>): Promise<void> {
    const { concurrency } = this.#context;
    await eachOf(items, { concurrency, signal: this.#options.signal }, work);
  }
}

/** A blob whose registries cannot be asked is one that nobody has: the registry that is pushed to is another. */
function asLost(error: unknown): unknown {
  if (!isLayercacheError(error, 'NETWORK', 'UNAUTHORIZED', 'REGISTRY')) return error;
  return new LayercacheError('NOT_FOUND', `nobody who has it can be asked: ${error.message}`, {
    cause: error,
  });
}
