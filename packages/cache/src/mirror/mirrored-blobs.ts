import type { Readable } from 'node:stream';
import { LayercacheError, MediaType, type Descriptor, type Digest } from '@layercache/oci';
import type { IngestOptions } from '@layercache/layout';
import type { FetchBlobOptions, FetchedBlob, RequestOptions } from '@layercache/registry';
import { countedStream } from '../metrics/counted-stream.js';
import { entryOf } from '../entries/entry.js';
import { blobOrigins } from '../entries/origins.js';
import { OtherSize } from '../share/remote-blobs.js';
import { mirroredName, passOn, type MirrorContext } from './mirror-context.js';

/** The blobs of a mirror: those of the cache, and those of its upstream, which stay when they were fetched. */
export class MirroredBlobs {
  readonly #context: MirrorContext;

  constructor(context: MirrorContext) {
    this.#context = context;
  }

  async size(name: string, digest: Digest, options: RequestOptions = {}): Promise<number | undefined> {
    const { local, upstream, host } = this.#context;
    const { repository } = mirroredName(host, name);
    return (await local.blobSize(name, digest, options)) ?? upstream.blobSize(repository, digest, options);
  }

  /** What is not here yet is handed out as it comes: a client need not wait for the last byte to get the first. */
  async fetch(name: string, digest: Digest, options: FetchBlobOptions = {}): Promise<FetchedBlob> {
    const { local, layout, upstream, metrics, logger, fetch, host } = this.#context;
    const known = this.#elsewhere(digest);
    const stored = await layout.blobSize(digest);
    const here = stored !== undefined && (known === undefined || known.size === stored);
    if (here) metrics.count('bytesSaved', stored);
    // What no entry says where to get may be a diffID, whose tar the cache can make.
    if (here || (known === undefined && (await local.blobSize(name, digest, options)) !== undefined)) {
      return local.fetchBlob(name, digest, options);
    }
    metrics.count('misses');
    const { descriptor, bring } = await this.#absent(name, digest, known, options);
    try {
      return await this.#arriving(name, descriptor, bring, options);
    } catch (error) {
      if (!(error instanceof OtherSize)) passOn(logger, digest, error);
      else {
        // The size that an entry claims was a lie, and nothing was handed out yet.
        const found = { ...descriptor, size: error.found as number };
        return this.#arriving(name, found, (each) => fetch(found, { ...each, exactSize: true }), options);
      }
    }
    const { repository } = mirroredName(host, name);
    const passed = await upstream.fetchBlob(repository, digest, options);
    return { ...passed, body: this.#counted(passed.body) };
  }

  async #arriving(
    name: string,
    { digest, size }: Descriptor,
    bring: (options: IngestOptions) => Promise<unknown>,
    options: FetchBlobOptions,
  ): Promise<FetchedBlob> {
    const { local, layout } = this.#context;
    if (options.range !== undefined) {
      await bring({ signal: options.signal });
      return local.fetchBlob(name, digest, options);
    }
    const body = await layout.readArriving({ digest, size }, bring, { signal: options.signal });
    return { size, offset: 0, body: this.#counted(body) };
  }

  #counted(body: Readable): Readable {
    return countedStream(body, (count) => {
      this.#context.metrics.count('bytesServed', count);
    });
  }

  /** A blob that is not here: as an entry says that it is, or the upstream. */
  async #absent(
    name: string,
    digest: Digest,
    known: Descriptor | undefined,
    { signal }: RequestOptions,
  ): Promise<{ descriptor: Descriptor; bring: (options: IngestOptions) => Promise<unknown> }> {
    const { layout, upstream, fetch, host } = this.#context;
    const { repository, full, origin } = mirroredName(host, name);
    const size = known?.size ?? (await upstream.blobSize(repository, digest, { signal }));
    if (size === undefined) throw new LayercacheError('NOT_FOUND', `${full} has no blob ${digest}`);
    const descriptor = known ?? { mediaType: MediaType.octetStream, digest, size };
    return {
      descriptor,
      bring: async (options) => {
        await fetch(descriptor, { ...options, origins: [origin], exactSize: true });
        if (known === undefined) await layout.put(entryOf(descriptor, { origin }));
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
}
