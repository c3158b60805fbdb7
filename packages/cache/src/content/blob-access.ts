import type { Readable } from 'node:stream';
import { LayercacheError, parseDigest } from '@layercache/oci';
import type { OciLayout } from '@layercache/layout';
import type { BlobOptions, FindOptions } from '../layer-cache-options.js';
import { countedStream } from '../metrics/counted-stream.js';
import type { Metrics } from '../metrics/metrics.js';
import { openBlob } from '../open-blob.js';
import type { RemoteBlobs } from '../share/remote-blobs.js';
import type { RemoteTier } from '../share/remote-tier.js';

export interface BlobAccessContext {
  readonly layout: OciLayout;
  readonly remote: RemoteBlobs;
  readonly tier: RemoteTier | undefined;
  readonly metrics: Metrics;
}

/** Blobs as a cache hands them out: from the disk, else from where they are known to be. */
export class BlobAccess {
  readonly #context: BlobAccessContext;

  constructor(context: BlobAccessContext) {
    this.#context = context;
  }

  async open(digest: string, options: BlobOptions = {}): Promise<Readable> {
    const key = parseDigest(digest);
    const here = await this.#context.layout.has(key);
    this.#context.metrics.count(here ? 'hits' : 'misses');
    const size = await this.size(key, options);
    if (size === undefined) throw new LayercacheError('NOT_FOUND', `blob ${key} is not in the cache`);
    const stream = await openBlob(
      this.#context.layout,
      () => this.fetch(key, options),
      { digest: key },
      options,
    );
    return countedStream(stream, (count) => {
      this.#context.metrics.count('bytesServed', count);
    });
  }
  async fetch(digest: string, options: FindOptions = {}): Promise<void> {
    const remote = await this.#context.remote.find(parseDigest(digest));
    if (remote !== undefined) await this.#context.remote.fetch(remote, options);
  }
  async size(digest: string, options: FindOptions = {}): Promise<number | undefined> {
    const key = parseDigest(digest);
    const here = (await this.#context.layout.blobSize(key)) ?? (await this.#context.remote.find(key))?.size;
    if (here !== undefined || this.#context.tier === undefined) return here;
    await this.#context.tier.find(key, options.signal);
    return (await this.#context.remote.find(key))?.size;
  }
}
