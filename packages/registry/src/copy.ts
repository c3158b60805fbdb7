import {
  MAX_MANIFEST_SIZE,
  isDigest,
  isImageManifestMediaType,
  isIndexMediaType,
  isLayercacheError,
  isNondistributable,
  parseImageIndex,
  parseImageManifest,
  type Descriptor,
  type Digest,
} from '@layercache/oci';
import pLimit from 'p-limit';
import { RegistryError } from './registry-error.js';
import type { FetchedManifest, Registry, RequestOptions } from './registry.js';

/** What became of one blob or manifest. */
export interface CopyEvent {
  /** `skipped`: the target had it. `mounted`: the target had it in another repository. */
  readonly outcome: 'copied' | 'mounted' | 'skipped';
  readonly descriptor: Descriptor;
}

export interface CopyOptions extends RequestOptions {
  /** Transfers at the same time. Default 4. */
  readonly concurrency?: number;
  /** A repository of the target that may have the blobs. Default: the source's, when both are one registry. */
  readonly mountFrom?: string;
  readonly onCopy?: (event: CopyEvent) => void;
}

export interface CopyEnd {
  readonly registry: Registry;
  readonly repository: string;
}

/** Image indexes may list image indexes, so deep and no deeper: more is no image but an attack. */
const MAX_DEPTH = 8;

/**
 * Copies an image, or an image index with all it lists, and tags it: blobs first, then manifests, each only when
 * all that it refers to is there. Layers that stay with their vendor are left out.
 *
 * @param reference tag or digest at the source; a tag is given at the target, too
 * @param options.tag another tag for the target
 * @throws LayercacheError what either registry throws; nothing is tagged then
 */
export async function copy(
  source: CopyEnd,
  reference: string,
  target: CopyEnd,
  options: CopyOptions & { readonly tag?: string } = {},
): Promise<Descriptor> {
  const root = await source.registry.fetchManifest(source.repository, reference, options);
  const tag = options.tag ?? (isDigest(reference) ? undefined : reference);
  await new Copier(source, target, options).copy(root, tag);
  return root.descriptor;
}

class Copier {
  readonly #source: CopyEnd;
  readonly #target: CopyEnd;
  readonly #onCopy: (event: CopyEvent) => void;
  readonly #abort = new AbortController();
  readonly #signal: AbortSignal;
  readonly #mountFrom: string | undefined;
  readonly #limit: ReturnType<typeof pLimit>;
  /** What is under way or done: images of one index share layers. */
  readonly #started = new Map<Digest, Promise<void>>();

  constructor(source: CopyEnd, target: CopyEnd, options: CopyOptions) {
    this.#source = source;
    this.#target = target;
    this.#onCopy = options.onCopy ?? (() => undefined);
    this.#signal =
      options.signal === undefined
        ? this.#abort.signal
        : AbortSignal.any([options.signal, this.#abort.signal]);
    this.#mountFrom =
      options.mountFrom ?? (source.registry === target.registry ? source.repository : undefined);
    this.#limit = pLimit(options.concurrency ?? 4);
  }

  async copy({ descriptor, bytes }: FetchedManifest, tag: string | undefined, depth = 0): Promise<void> {
    const what = `manifest ${descriptor.digest}`;
    if (depth > MAX_DEPTH) {
      throw new RegistryError(
        'REGISTRY',
        `${what} is nested deeper than ${MAX_DEPTH} image indexes: refused`,
      );
    }
    if (isIndexMediaType(descriptor.mediaType)) {
      const { manifests } = parseImageIndex(bytes, what);
      await this.#all(manifests, (child) => this.#manifest(child, depth + 1));
    } else if (isImageManifestMediaType(descriptor.mediaType)) {
      const { config, layers } = parseImageManifest(bytes, what);
      const blobs = [config, ...layers].filter(({ mediaType }) => !isNondistributable(mediaType));
      await this.#all(blobs, (blob) => this.#limit(() => this.#blob(blob)));
    }
    const { registry, repository } = this.#target;
    await registry.pushManifest(repository, descriptor.mediaType, bytes, {
      signal: this.#signal,
      ...(tag === undefined ? {} : { tag }),
    });
    this.#onCopy({ outcome: 'copied', descriptor });
  }

  /** Waits for all, so that nothing goes on behind the caller's back; the first failure stops the others. */
  async #all(items: readonly Descriptor[], work: (item: Descriptor) => Promise<void>): Promise<void> {
    let first: { readonly error: unknown } | undefined;
    const each = async (item: Descriptor): Promise<void> => {
      const started = this.#started.get(item.digest) ?? work(item);
      this.#started.set(item.digest, started);
      try {
        await started;
      } catch (error) {
        first ??= { error };
        this.#abort.abort();
      }
    };
    await Promise.all(items.map(each));
    if (first !== undefined) throw first.error as Error;
  }

  async #manifest(descriptor: Descriptor, depth: number): Promise<void> {
    const signal = this.#signal;
    const has = await this.#limit(() => this.#targetHas(descriptor));
    if (has) {
      this.#onCopy({ outcome: 'skipped', descriptor });
      return;
    }
    if (descriptor.size > MAX_MANIFEST_SIZE) {
      const message = `manifest ${descriptor.digest} has ${descriptor.size} bytes, more than ${MAX_MANIFEST_SIZE}`;
      throw new RegistryError('REGISTRY', message);
    }
    const { registry, repository } = this.#source;
    const fetched = await this.#limit(() =>
      registry.fetchManifest(repository, descriptor.digest, { signal }),
    );
    await this.copy(fetched, undefined, depth);
  }

  async #targetHas({ digest }: Descriptor): Promise<boolean> {
    try {
      await this.#target.registry.resolve(this.#target.repository, digest, { signal: this.#signal });
      return true;
    } catch (error) {
      if (isLayercacheError(error, 'NOT_FOUND')) return false;
      throw error;
    }
  }

  async #blob(descriptor: Descriptor): Promise<void> {
    const { digest } = descriptor;
    const signal = this.#signal;
    const { registry, repository } = this.#target;
    // Size too: a blob of another size is not the blob.
    if ((await registry.blobSize(repository, digest, { signal })) === descriptor.size) {
      this.#onCopy({ outcome: 'skipped', descriptor });
      return;
    }
    const from = this.#mountFrom;
    if (from !== undefined && from !== repository) {
      if (await registry.mountBlob(repository, digest, from, { signal })) {
        this.#onCopy({ outcome: 'mounted', descriptor });
        return;
      }
    }
    const source = this.#source;
    await registry.pushBlob(
      repository,
      descriptor,
      async function* () {
        const { body } = await source.registry.fetchBlob(source.repository, digest, { signal });
        yield* body as AsyncIterable<Uint8Array>;
      },
      { signal },
    );
    this.#onCopy({ outcome: 'copied', descriptor });
  }
}
