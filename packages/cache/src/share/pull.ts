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
import { parseManifest } from '../image-walk.js';
import { withOrigin } from './blob-origin.js';
import type { MetricsRecorder } from '../metrics/metrics.js';
import { eachOf } from './each.js';
import { entriesToAdopt } from './merge.js';
import type { RemoteBlobs } from './remote-blobs.js';
import { RemoteCacheReader, type CacheLocation, type RemoteCache } from './remote-cache.js';
import type { RemoteMemory } from './remote-memory.js';

export interface PullOptions {
  /** Take the manifests only: blobs come when they are asked for. Default false. */
  readonly lazy?: boolean | undefined;
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
}

export interface PullContext {
  readonly layout: OciLayout;
  readonly location: CacheLocation;
  readonly blobs: RemoteBlobs;
  readonly memory: RemoteMemory;
  readonly concurrency: number;
  readonly logger: Logger;
  readonly metrics: MetricsRecorder;
}

/**
 * Merges the cache in a registry into a layout. What it says of pairs is claimed; every blob is verified. First
 * the entries, which say where their blobs are to be had, then the blobs: so an interrupted pull leaves a lazy
 * cache, and the next goes on from there.
 *
 * @throws LayercacheError `NOT_FOUND` when there is nothing under the tag
 */
export async function pullCache(context: PullContext, options: PullOptions): Promise<PullResult> {
  const { layout, location, memory } = context;
  const { signal } = options;
  const reader = new RemoteCacheReader(location, memory);
  const remote = await reader.read(signal);
  if (remote === undefined) {
    throw new LayercacheError('NOT_FOUND', `there is no cache at ${location.name}: push one there first`);
  }
  await layout.put(entriesToAdopt(layout, remote.entries, location.origin));
  const parts = await pullImages(context, remote, signal);
  await layout.sync();
  const listed = new Map([...remote.entries, ...parts].map((blob) => [blob.digest, blob] as const));
  const tally = await pullBlobs(context, [...listed.values()], options);
  await reader.keep(remote);
  const result = {
    name: location.name,
    digest: remote.descriptor.digest,
    received: { blobs: tally.blobs, bytes: tally.bytes },
    kept: tally.kept,
    remote: tally.remote,
    entries: remote.entries.length,
    images: remote.images.filter((image) => refName(image) !== undefined).length,
  };
  context.logger.info({ message: 'cache pulled', ...result });
  return result;
}

/** Brings the manifests of images here, and resolves with the blobs they refer to. */
async function pullImages(
  context: PullContext,
  remote: RemoteCache,
  signal: AbortSignal | undefined,
): Promise<Descriptor[]> {
  const { layout, location, concurrency } = context;
  const seen = new Set<Digest>();
  const parts = new Map<Digest, Descriptor>();
  const manifests: Descriptor[] = [];

  const bring = async (image: Descriptor): Promise<readonly Descriptor[]> => {
    const here = await layout.has(image.digest, image.size);
    const bytes = here
      ? await layout.readBytes(image.digest, { maxSize: MAX_MANIFEST_SIZE, signal })
      : (await location.registry.fetchManifest(location.repository, image.digest, { signal })).bytes;
    if (!here) await layout.write(bytes, { digest: image.digest, size: image.size, signal });
    const parsed = parseManifest(image, bytes);
    if (parsed.kind === 'index') return parsed.index.manifests;
    for (const blob of [parsed.manifest.config, ...parsed.manifest.layers]) {
      if (!isNondistributable(blob.mediaType)) parts.set(blob.digest, blob);
    }
    return [];
  };
  for (let level: readonly Descriptor[] = remote.images; level.length > 0;) {
    manifests.push(...level.filter((image) => !hasEntry(layout, image)));
    const unseen = new Map(
      level.filter(({ digest }) => !seen.has(digest)).map((image) => [image.digest, image] as const),
    );
    const children: Descriptor[] = [];
    await eachOf([...unseen.values()], { concurrency, signal }, async (image) => {
      seen.add(image.digest);
      children.push(...(await bring(image)));
    });
    level = children;
  }
  await layout.put([...entriesToAdopt(layout, [...parts.values()], location.origin), ...manifests]);
  return [...parts.values()];
}

function hasEntry(layout: OciLayout, image: Descriptor): boolean {
  return layout
    .lookup(image.digest)
    .some(({ descriptor }) => descriptor.digest === image.digest && refName(descriptor) === refName(image));
}

/** Fetches what is not here; a lazy pull counts it. */
async function pullBlobs(
  context: PullContext,
  listed: readonly Descriptor[],
  { lazy = false, signal, onProgress }: PullOptions,
): Promise<{ blobs: number; bytes: number; kept: number; remote: number }> {
  const { layout, blobs, concurrency, metrics } = context;
  const tally = { blobs: 0, bytes: 0, kept: 0, remote: 0 };
  await eachOf(listed, { concurrency, signal }, async (blob) => {
    if (await layout.has(blob.digest, blob.size)) {
      tally.kept += 1;
      metrics.count('hits');
      metrics.count('bytesSaved', blob.size);
      onProgress?.({ descriptor: blob, received: blob.size, state: 'kept' });
    } else if (lazy) {
      tally.remote += 1;
    } else {
      const { fetched } = await blobs.fetch(withOrigin(blob, context.location.origin), {
        signal,
        onProgress: (received) => onProgress?.({ descriptor: blob, received, state: 'receiving' }),
      });
      metrics.count('misses');
      metrics.count('bytesSaved', blob.size - fetched);
      tally.blobs += 1;
      tally.bytes += fetched;
      onProgress?.({ descriptor: blob, received: blob.size, state: 'done' });
    }
  });
  return tally;
}
