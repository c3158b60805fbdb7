import {
  LayercacheError,
  MAX_MANIFEST_SIZE,
  digestAlgorithm,
  digestOf,
  isLayercacheError,
  isManifestMediaType,
  isNondistributable,
  throwIfAborted,
  type Descriptor,
  type Digest,
} from '@layercache/oci';
import type { OciLayout } from '@layercache/layout';
import { CACHE_CONFIG_TYPE, decodeCacheIndex } from '../share/cache-index.js';
import { parseManifest } from './manifest.js';

/** Shards and cache indexes describe a whole cache. They are no images, and what they list lives on its own. */
export type ManifestKind = 'image' | 'index' | 'shard' | 'cache index';

/** One manifest, and what it refers to. */
export interface ManifestNode {
  readonly descriptor: Descriptor;
  /** Undefined for a manifest that refers to nothing known: it is not here, corrupt, or not a manifest. */
  readonly kind: ManifestKind | undefined;
  /** Config and layers of an image, in this order. Only the config of a shard. */
  readonly blobs: readonly Descriptor[];
  /** Children of an index. Only the shards of a cache index. */
  readonly manifests: readonly Descriptor[];
  readonly subject: Digest | undefined;
}

/** The manifests below an image, and the blobs of all of them. */
export interface Closure {
  /** The image itself is the first. */
  readonly manifests: readonly Descriptor[];
  /** Configs and layers, without the layers that may not be distributed. */
  readonly blobs: readonly Descriptor[];
}

/**
 * Whether an error says that a manifest refers to nothing known. Any other error (a disk that fails, too many open
 * files, an abort) says nothing about the manifest, so that nothing may be removed on the strength of it.
 */
export function refersToNothing(error: unknown): error is LayercacheError {
  return isLayercacheError(error, 'NOT_FOUND', 'DOCUMENT_INVALID', 'DIGEST_MISMATCH', 'UNSUPPORTED');
}

/**
 * The manifests of a layout and what they refer to. Each manifest is read once, verified, and reading it neither counts
 * as a use nor removes anything.
 */
export class ImageGraph {
  readonly #layout: OciLayout;
  readonly #nodes = new Map<Digest, Promise<ManifestNode>>();

  constructor(layout: OciLayout) {
    this.#layout = layout;
  }

  /** @throws LayercacheError `NOT_FOUND`, `DOCUMENT_INVALID`, `DIGEST_MISMATCH`, `UNSUPPORTED`; `STORAGE` */
  read(manifest: Descriptor): Promise<ManifestNode> {
    const known = this.#nodes.get(manifest.digest);
    if (known !== undefined) return known;
    const node = this.#parse(manifest);
    this.#nodes.set(manifest.digest, node);
    // A manifest that cannot be read now may be readable later.
    node.catch(() => this.#nodes.delete(manifest.digest));
    return node;
  }

  /**
   * As {@link read}, where a manifest that refers to nothing known has no parts.
   *
   * @throws LayercacheError `STORAGE` for every other reason not to know what it refers to
   */
  async node(manifest: Descriptor): Promise<ManifestNode> {
    try {
      return await this.read(manifest);
    } catch (error) {
      if (!refersToNothing(error)) throw error;
      return { descriptor: manifest, kind: undefined, blobs: [], manifests: [], subject: undefined };
    }
  }

  /** @throws LayercacheError `STORAGE`, `ABORTED` */
  async closure(image: Descriptor, signal?: AbortSignal): Promise<Closure> {
    const manifests = new Map<Digest, Descriptor>();
    const blobs = new Map<Digest, Descriptor>();
    for await (const node of this.below([image], signal)) {
      manifests.set(node.descriptor.digest, node.descriptor);
      for (const blob of node.blobs) if (!isNondistributable(blob.mediaType)) blobs.set(blob.digest, blob);
    }
    return { manifests: [...manifests.values()], blobs: [...blobs.values()] };
  }

  /** Every manifest from some roots on, at any depth, once. A root comes before the manifests below it. */
  async *below(roots: Iterable<Descriptor>, signal?: AbortSignal): AsyncGenerator<ManifestNode> {
    const seen = new Set<Digest>();
    const queue = [...roots];
    for (let next = queue.pop(); next !== undefined; next = queue.pop()) {
      throwIfAborted(signal);
      if (seen.has(next.digest) || !isManifestMediaType(next.mediaType)) continue;
      seen.add(next.digest);
      const node = await this.node(next);
      yield node;
      for (const child of node.manifests) queue.push(child);
    }
  }

  async #parse(manifest: Descriptor): Promise<ManifestNode> {
    const bytes = await this.#bytes(manifest.digest);
    const parsed = parseManifest(manifest, bytes);
    if (parsed.kind === 'index') {
      const { manifests, subject } = parsed.index;
      const cacheIndex = decodeCacheIndex(bytes, `image index ${manifest.digest}`);
      return {
        descriptor: manifest,
        kind: cacheIndex === undefined ? 'index' : 'cache index',
        blobs: [],
        manifests: cacheIndex?.shards ?? manifests,
        subject: subject?.digest,
      };
    }
    const { config, layers, subject } = parsed.manifest;
    const isShard = config.mediaType === CACHE_CONFIG_TYPE;
    return {
      descriptor: manifest,
      kind: isShard ? 'shard' : 'image',
      blobs: isShard ? [config] : [config, ...layers],
      manifests: [],
      subject: subject?.digest,
    };
  }

  async #bytes(digest: Digest): Promise<Uint8Array> {
    const size = await this.#layout.blobSize(digest);
    if (size !== undefined && size > MAX_MANIFEST_SIZE) {
      throw new LayercacheError(
        'DOCUMENT_INVALID',
        `manifest ${digest} has ${size} bytes; the limit is ${MAX_MANIFEST_SIZE}: remove it`,
      );
    }
    const chunks: Uint8Array[] = [];
    for await (const chunk of this.#layout.read(digest, { verify: false, touch: false }))
      chunks.push(chunk as Buffer);
    const bytes = Buffer.concat(chunks);
    const found = digestOf(bytes, digestAlgorithm(digest));
    if (found === digest) return bytes;
    throw new LayercacheError(
      'DIGEST_MISMATCH',
      `manifest ${digest} is corrupt: its bytes hash to ${found}; run verify --repair`,
    );
  }
}
