import pLimit from 'p-limit';
import {
  LayercacheError,
  MAX_MANIFEST_SIZE,
  isNondistributable,
  refName,
  throwIfAborted,
  type Descriptor,
  type Digest,
  type Logger,
} from '@layercache/oci';
import type { OciLayout } from '@layercache/layout';
import type { BlobProgress } from '../add-image.js';
import { parseManifest } from '../image-walk.js';
import { withOrigin } from './blob-origin.js';
import { cachedImages, encodeCacheIndex, travellingEntries } from './cache-index.js';
import { readRemoteCache, type CacheLocation } from './remote-cache.js';

export interface PullOptions {
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: ((progress: BlobProgress) => void) | undefined;
}

export interface PullResult {
  readonly name: string;
  /** Of the cache index that was pulled. */
  readonly digest: Digest;
  readonly received: { readonly blobs: number; readonly bytes: number };
  /** Blobs that were here already. */
  readonly kept: number;
  readonly entries: number;
  readonly images: number;
}

/**
 * Merges the cache in a registry into a layout. What it says of pairs is claimed; every blob is verified.
 *
 * @throws LayercacheError `NOT_FOUND` when there is nothing under the tag
 */
export async function pullCache(
  context: {
    readonly layout: OciLayout;
    readonly location: CacheLocation;
    readonly concurrency: number;
    readonly logger: Logger;
  },
  options: PullOptions,
): Promise<PullResult> {
  const { layout, location } = context;
  const { registry, repository, name } = location;
  const { signal, onProgress } = options;
  const tally = { blobs: 0, bytes: 0, kept: 0 };
  const limit = pLimit(context.concurrency);
  const local = [...layout.entries()].map((entry) => entry.descriptor);
  const remote = await readRemoteCache(
    location,
    encodeCacheIndex(travellingEntries(local), cachedImages(local)),
    signal,
  );
  if (remote === undefined) {
    throw new LayercacheError('NOT_FOUND', `there is no cache at ${name}: push one there first`);
  }

  const fetched = new Map<Digest, Promise<void>>();
  const fetchBlob = (blob: Descriptor): Promise<void> => {
    const running = fetched.get(blob.digest);
    if (running !== undefined) return running;
    const started = limit(async () => {
      throwIfAborted(signal);
      if (await layout.has(blob.digest, blob.size)) {
        tally.kept += 1;
        onProgress?.({ descriptor: blob, received: blob.size, state: 'kept' });
      } else {
        const { fetched: bytes } = await layout.ingest(
          blob,
          (offset, stop) =>
            registry.fetchBlob(repository, blob.digest, {
              ...(offset === 0 ? {} : { range: { first: offset } }),
              signal: stop,
            }),
          {
            signal,
            onProgress: (received) => onProgress?.({ descriptor: blob, received, state: 'receiving' }),
          },
        );
        tally.blobs += 1;
        tally.bytes += bytes;
        onProgress?.({ descriptor: blob, received: blob.size, state: 'done' });
      }
      await layout.put(withOrigin(blob, name.slice(0, name.lastIndexOf(':'))));
    });
    fetched.set(blob.digest, started);
    return started;
  };

  const fetchImage = async (image: Descriptor): Promise<void> => {
    const bytes = (await layout.has(image.digest, image.size))
      ? await layout.readBytes(image.digest, { maxSize: MAX_MANIFEST_SIZE, signal })
      : (await registry.fetchManifest(repository, image.digest, { signal })).bytes;
    const parsed = parseManifest(image, bytes);
    if (parsed.kind === 'index') {
      for (const child of parsed.index.manifests) await fetchImage(child);
    } else {
      const { config, layers } = parsed.manifest;
      const listed = new Set(remote.entries.map((entry) => entry.digest));
      const blobs = [config, ...layers].filter(
        (blob) => !isNondistributable(blob.mediaType) && !listed.has(blob.digest),
      );
      await Promise.all(blobs.map(fetchBlob));
    }
    await layout.write(bytes, { digest: image.digest, size: image.size, signal });
    await layout.put(image);
  };

  // Settled, not raced: nothing is left running when this rejects.
  const outcomes = await Promise.allSettled(remote.entries.map(fetchBlob));
  for (const outcome of outcomes) if (outcome.status === 'rejected') throw outcome.reason as Error;
  for (const image of remote.images) {
    throwIfAborted(signal);
    await fetchImage(image);
  }
  await layout.sync();
  context.logger.info({ message: 'cache pulled', name, digest: remote.descriptor.digest, ...tally });
  return {
    name,
    digest: remote.descriptor.digest,
    received: { blobs: tally.blobs, bytes: tally.bytes },
    kept: tally.kept,
    entries: remote.entries.length,
    images: remote.images.filter((image) => refName(image) !== undefined).length,
  };
}
