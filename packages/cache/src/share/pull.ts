import {
  LayercacheError,
  MAX_MANIFEST_SIZE,
  isNondistributable,
  refName,
  type Descriptor,
  type Digest,
  type Logger,
} from '@layercache/oci';
import type { OciLayout } from '@layercache/layout';
import type { BlobProgress } from '../add-image.js';
import { entryOf } from '../entries/entry.js';
import { parseManifest } from '../images/manifest.js';
import type { MetricsRecorder } from '../metrics/metrics.js';
import type { TagResolver } from '../tags/tag-resolver.js';
import { eachOf } from './each.js';
import { entriesToAdopt } from './merge.js';
import { NamePuller, type NamePolicy, type PulledNames } from './pulled-names.js';
import type { RemoteBlobs } from './remote-blobs.js';
import { skippedPart, type SkippedPart } from './skipped-part.js';
import { RemoteCacheReader, type CacheLocation, type RemoteCache } from './remote-cache.js';
import type { RemoteMemory } from './remote-memory.js';

export interface PullOptions {
  /** Take the manifests only: blobs come when they are asked for. Default false. */
  readonly lazy?: boolean | undefined;
  /** Whether names that come with the cache are asked of their registries. Default `prove`. */
  readonly names?: NamePolicy | undefined;
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: ((progress: BlobProgress) => void) | undefined;
}

export interface PullResult {
  readonly name: string;
  /** Of the cache index that was pulled. */
  readonly digest: Digest;
  /** Blobs of layers, layer indexes and image configs, and bytes of them. */
  readonly received: { readonly blobs: number; readonly bytes: number };
  /** Blobs that were here already. */
  readonly kept: number;
  /** Blobs left at the registry by a lazy pull. */
  readonly remote: number;
  readonly entries: number;
  readonly images: number;
  readonly names: PulledNames;
  /** Images and blobs that could not be had: everything else came. */
  readonly skipped: readonly SkippedPart[];
}

export interface PullContext {
  readonly layout: OciLayout;
  readonly location: CacheLocation;
  readonly blobs: RemoteBlobs;
  readonly memory: RemoteMemory;
  readonly tags: TagResolver;
  /** How long the entry of an image says that it stays. */
  readonly renew: (named: Descriptor) => Descriptor;
  readonly concurrency: number;
  readonly logger: Logger;
  readonly metrics: MetricsRecorder;
}

/** How deep image indexes may be nested in one another. */
const MAX_DEPTH = 8;

/**
 * Merges the cache in a registry into a layout. What it says of pairs, layer indexes and names is claimed; every blob is
 * verified. First come the entries, which say where their blobs are to be had, then the blobs: so an interrupted pull
 * leaves a lazy cache, and the next goes on from there. What cannot be had is skipped.
 *
 * @throws LayercacheError `NOT_FOUND` when there is nothing under the tag
 */
export async function pullCache(context: PullContext, options: PullOptions): Promise<PullResult> {
  const { layout, location, memory } = context;
  const { signal, names: policy = 'prove' } = options;
  const reader = new RemoteCacheReader(location, memory, context.logger);
  const remote = await reader.read({ signal });
  if (remote === undefined) {
    throw new LayercacheError('NOT_FOUND', `there is no cache at ${location.name}: push one there first`);
  }
  const skipped: SkippedPart[] = [];
  const leave = (part: SkippedPart): void => {
    skipped.push(part);
    const { message, ...fields } = part;
    context.logger.warn({ message: 'part of the shared cache skipped', ...fields, error: message });
  };
  for (const part of remote.lost) leave(part);
  const skip = (part: Descriptor, error: unknown): void => {
    leave(skippedPart(part, error));
  };
  await layout.put(entriesToAdopt(layout, remote.entries, location.origin));
  const names = new NamePuller({ ...context, host: location.origin.registry });
  const { images, parts } = await pullImages(context, remote, names, { policy, signal, skip });
  await layout.sync();
  const settled = await names.settle(images, policy, signal);
  const listed = new Map([...remote.entries, ...parts].map((blob) => [blob.digest, blob] as const));
  const tally = await pullBlobs(context, [...listed.values()], skip, options);
  await layout.sync();
  const { digest } = await reader.keep(remote);
  const lost = skipped.filter(({ code }) => code === 'NOT_FOUND').map((part) => part.digest);
  await memory.keepLost(location.name, new Set(lost));
  const result = {
    name: location.name,
    digest,
    received: { blobs: tally.blobs, bytes: tally.bytes },
    kept: tally.kept,
    remote: tally.remote,
    entries: remote.entries.length,
    images: remote.images.filter((image) => refName(image) !== undefined).length,
    names: settled,
    skipped,
  };
  const { names: counted, skipped: left, ...facts } = result;
  context.logger.info({
    message: 'cache pulled',
    ...facts,
    claimedNames: counted.claimed.length,
    differentNames: counted.different.length,
    skipped: left.length,
  });
  return result;
}

/**
 * Brings the manifests of images here, each with the entries of what it refers to.
 *
 * @returns the images that are whole as far as manifests go, and the blobs of all of them
 */
async function pullImages(
  context: PullContext,
  remote: RemoteCache,
  names: NamePuller,
  options: {
    readonly policy: NamePolicy;
    readonly signal: AbortSignal | undefined;
    readonly skip: (part: Descriptor, error: unknown) => void;
  },
): Promise<{ images: Descriptor[]; parts: Descriptor[] }> {
  const { layout, location, concurrency } = context;
  const { signal, skip, policy } = options;
  const bring = async (image: Descriptor): Promise<PulledManifest> => {
    const here = await layout.has(image.digest, image.size);
    const bytes = here
      ? await layout.readBytes(image.digest, { maxSize: MAX_MANIFEST_SIZE, signal })
      : (await location.registry.fetchManifest(location.repository, image.digest, { signal })).bytes;
    const parsed = parseManifest(image, bytes);
    if (!here) await layout.write(bytes, { digest: image.digest, size: image.size, signal });
    if (parsed.kind === 'index') return { blobs: [], children: parsed.index.manifests };
    const { config, layers } = parsed.manifest;
    const blobs = [config, ...layers].filter((blob) => !isNondistributable(blob.mediaType));
    return { blobs: blobs.map((blob) => entryOf(blob)), children: [] };
  };
  const pulled = new Map<Digest, Descriptor>();
  const parts = new Map<Digest, Descriptor>();
  const seen = new Set<Digest>();
  let level: readonly Descriptor[] = remote.images;
  for (let depth = 0; level.length > 0 && depth <= MAX_DEPTH; depth++) {
    const unseen = new Map(
      level.filter(({ digest }) => !seen.has(digest)).map((image) => [image.digest, image] as const),
    );
    const children: Descriptor[] = [];
    await eachOf([...unseen.values()], { concurrency, signal }, async (image) => {
      seen.add(image.digest);
      try {
        const manifest = await bring(image);
        for (const blob of manifest.blobs) parts.set(blob.digest, blob);
        for (const child of manifest.children) children.push(entryOf(child));
        pulled.set(image.digest, entryOf(image));
      } catch (error) {
        skip(image, error);
      }
    });
    level = children;
  }
  const images = remote.images.filter((image) => pulled.has(image.digest));
  for (const image of images) pulled.delete(image.digest);
  const nested = [...pulled.values()].filter((image) => !isListed(layout, image));
  await layout.put([
    ...entriesToAdopt(layout, [...parts.values()], location.origin),
    ...nested,
    ...names.entries(images, policy),
  ]);
  return { images, parts: [...parts.values()] };
}

/** What one manifest refers to. */
interface PulledManifest {
  readonly blobs: readonly Descriptor[];
  readonly children: readonly Descriptor[];
}

function isListed(layout: OciLayout, image: Descriptor): boolean {
  return layout.lookup(image.digest).some(({ descriptor }) => descriptor.digest === image.digest);
}

/** Fetches what is not here; a lazy pull counts it. */
async function pullBlobs(
  context: PullContext,
  listed: readonly Descriptor[],
  skip: (part: Descriptor, error: unknown) => void,
  { lazy = false, signal, onProgress }: PullOptions,
): Promise<{ blobs: number; bytes: number; kept: number; remote: number }> {
  const { layout, blobs, concurrency, metrics, location } = context;
  const tally = { blobs: 0, bytes: 0, kept: 0, remote: 0 };
  const bring = async (blob: Descriptor): Promise<void> => {
    const { fetched } = await blobs.fetch(blob, {
      origins: [location.origin],
      signal,
      onProgress: (received) => onProgress?.({ descriptor: blob, received, state: 'receiving' }),
    });
    metrics.count('misses');
    metrics.count('bytesSaved', blob.size - fetched);
    tally.blobs += 1;
    tally.bytes += fetched;
    onProgress?.({ descriptor: blob, received: blob.size, state: 'done' });
  };
  await eachOf(listed, { concurrency, signal }, async (blob) => {
    if (await layout.has(blob.digest, blob.size)) {
      tally.kept += 1;
      metrics.count('hits');
      metrics.count('bytesSaved', blob.size);
      onProgress?.({ descriptor: blob, received: blob.size, state: 'kept' });
    } else if (lazy) {
      tally.remote += 1;
    } else {
      try {
        await bring(blob);
      } catch (error) {
        skip(blob, error);
      }
    }
  });
  return tally;
}
