import {
  Annotation,
  isDigest,
  isIndexMediaType,
  isManifestMediaType,
  refName,
  throwIfAborted,
  type Descriptor,
  type Digest,
} from '@layercache/oci';
import type { OciLayout } from '@layercache/layout';
import { isLayerDescriptor, layerRecord } from '../layer-record.js';
import { isPinned } from '../entries/lifetime.js';
import { CACHE_TAG } from '../entries/names.js';
import { blobKind, type BlobKind } from './blob-kind.js';
import { ManifestGraph } from './manifest-graph.js';

/** One blob that the cache has, or knows of. */
export interface CountedBlob {
  readonly digest: Digest;
  kind: BlobKind;
  /** Empty: nothing names it. */
  mediaType: string;
  /** Bytes on this disk; undefined when it is not here. */
  readonly size: number | undefined;
  /** When it was last read or written, to the hour. */
  readonly usedAt: Date | undefined;
  /** How many entries of index.json are of it. */
  entries: number;
  /** The images that need it. */
  readonly images: Set<CountedImage>;
}

/** A layer of an image, in every form that is here. */
export interface CountedLayer {
  readonly digest: Digest;
  readonly diffID: Digest | undefined;
  readonly forms: readonly CountedBlob[];
}

/** An image with all that belongs to it: the images below an index, referrers, tars and layer indexes. */
export interface CountedImage {
  readonly digest: Digest;
  /** Sorted; none: nobody named it. */
  readonly names: readonly string[];
  /** It is kept, whatever room is wanted. */
  readonly pinned: boolean;
  readonly layers: CountedLayer[];
  readonly blobs: Set<CountedBlob>;
}

/** Every blob and every image of a cache, and which needs which. */
export interface Census {
  readonly blobs: ReadonlyMap<Digest, CountedBlob>;
  readonly images: readonly CountedImage[];
}

/** Looks at every entry, every manifest and every file below `blobs/`. Nothing of that counts as a use. */
export async function takeCensus(layout: OciLayout, signal?: AbortSignal): Promise<Census> {
  const taker = new CensusTaker(layout);
  const manifests = await taker.countBlobs(signal);
  const graph = await ManifestGraph.read(layout, manifests, signal);
  return { blobs: taker.blobs, images: taker.countImages(graph) };
}

class CensusTaker {
  readonly blobs = new Map<Digest, CountedBlob>();
  readonly #layout: OciLayout;
  readonly #names = new Map<Digest, string[]>();
  readonly #pinned = new Set<Digest>();
  readonly #layerIndexes = new Map<Digest, CountedBlob[]>();

  constructor(layout: OciLayout) {
    this.#layout = layout;
  }

  /** Returns the manifests among the entries. */
  async countBlobs(signal: AbortSignal | undefined): Promise<Descriptor[]> {
    for await (const { digest, size, usedAt } of this.#layout.storedBlobs()) {
      throwIfAborted(signal);
      this.blobs.set(digest, emptyCount(digest, size, usedAt));
    }
    for (const digest of this.#layout.retiredBlobs()) {
      const blob = this.blobs.get(digest);
      if (blob !== undefined) blob.kind = 'cache index';
    }
    const manifests: Descriptor[] = [];
    for (const { descriptor } of this.#layout.entries()) {
      const blob = this.#describe(descriptor);
      blob.entries++;
      if (isManifestMediaType(descriptor.mediaType)) {
        manifests.push(descriptor);
        this.#note(descriptor);
        continue;
      }
      const layer = descriptor.annotations?.[Annotation.sociLayerDigest];
      if (layer === undefined || !isDigest(layer)) continue;
      this.#layerIndexes.set(layer, [...(this.#layerIndexes.get(layer) ?? []), blob]);
    }
    return manifests;
  }

  /** Named images, then manifests that belong to none: indexes first, and last what refers to another. */
  countImages(graph: ManifestGraph): CountedImage[] {
    for (const { blobs, manifests } of graph.nodes)
      for (const child of [...blobs, ...manifests]) this.#describe(child);
    this.#markCacheIndexes(graph);
    const images: CountedImage[] = [];
    for (const [digest, names] of this.#names) if (names.length > 0) images.push(this.#image(graph, digest));
    const rank = (digest: Digest): number =>
      graph.node(digest)?.subject !== undefined ? 2 : this.#isIndex(digest) ? 0 : 1;
    const nameless = [...this.#names].flatMap(([digest, names]) => (names.length === 0 ? [digest] : []));
    for (const digest of nameless.sort((a, b) => rank(a) - rank(b))) {
      if (this.blobs.get(digest)?.images.size === 0) images.push(this.#image(graph, digest));
    }
    return images;
  }

  #note(manifest: Descriptor): void {
    const { digest } = manifest;
    const name = refName(manifest);
    if (name === CACHE_TAG) return;
    if (isPinned(manifest)) this.#pinned.add(digest);
    const names = this.#names.get(digest) ?? [];
    this.#names.set(digest, name === undefined ? names : [...names, name].sort());
  }

  #image(graph: ManifestGraph, root: Digest): CountedImage {
    const image: CountedImage = {
      digest: root,
      names: this.#names.get(root) ?? [],
      pinned: this.#pinned.has(root),
      layers: [],
      blobs: new Set(),
    };
    const seen = new Set<Digest>();
    const queue = [root];
    for (let next = queue.pop(); next !== undefined; next = queue.pop()) {
      if (seen.has(next)) continue;
      seen.add(next);
      const blob = this.blobs.get(next);
      if (blob !== undefined) own(image, blob);
      const node = graph.node(next);
      if (node === undefined) continue;
      for (const { digest } of [...node.blobs, ...node.manifests]) queue.push(digest);
      for (const digest of graph.referrers(next)) queue.push(digest);
      for (const layer of node.blobs.slice(1)) {
        if (isLayerDescriptor(layer) && !seen.has(layer.digest)) this.#addLayer(image, layer.digest);
      }
    }
    return image;
  }

  /** A layer's own blob, its tar, and the layer indexes of both. */
  #addLayer(image: CountedImage, digest: Digest): void {
    if (image.layers.some((layer) => layer.digest === digest)) return;
    const record = layerRecord(this.#layout, digest);
    const forms: CountedBlob[] = [];
    for (const each of new Set([digest, record?.tar?.descriptor.digest ?? digest])) {
      const blob = this.blobs.get(each);
      if (blob !== undefined) forms.push(blob);
      forms.push(...(this.#layerIndexes.get(each) ?? []));
    }
    for (const form of forms) own(image, form);
    image.layers.push({ digest, diffID: record?.diffID, forms });
  }

  /** Cache indexes, former ones too, and their shards are no images, though they look like it. */
  #markCacheIndexes(graph: ManifestGraph): void {
    for (const { descriptor, kind, blobs } of graph.nodes) {
      const { digest } = descriptor;
      if (kind !== 'cache index' && kind !== 'shard') continue;
      const names = this.#names.get(digest);
      // An index that a user gave another name is what the user says.
      if (names !== undefined && names.length > 0) continue;
      this.#names.delete(digest);
      const config = kind === 'shard' ? blobs.slice(0, 1) : [];
      for (const each of [descriptor, ...config]) {
        const blob = this.blobs.get(each.digest);
        if (blob !== undefined) blob.kind = 'cache index';
      }
    }
  }

  #describe(descriptor: Descriptor): CountedBlob {
    const { digest, mediaType } = descriptor;
    const blob = this.blobs.get(digest) ?? emptyCount(digest, undefined, undefined);
    this.blobs.set(digest, blob);
    if (blob.kind === 'other') {
      blob.mediaType = mediaType;
      blob.kind = blobKind(descriptor);
    }
    return blob;
  }

  #isIndex(digest: Digest): boolean {
    return isIndexMediaType(this.blobs.get(digest)?.mediaType ?? '');
  }
}

function emptyCount(digest: Digest, size: number | undefined, usedAt: Date | undefined): CountedBlob {
  return { digest, size, usedAt, kind: 'other', mediaType: '', entries: 0, images: new Set() };
}

function own(image: CountedImage, blob: CountedBlob): void {
  image.blobs.add(blob);
  blob.images.add(image);
}
