import { isManifestMediaType, refName, type Descriptor, type Digest } from '@layercache/oci';
import type { OciLayout } from '@layercache/layout';
import { CACHE_TAG } from '../entries/names.js';
import { ImageGraph, type ManifestNode } from './image-graph.js';

/** An entry of a manifest, and what it refers to. */
interface Listed {
  readonly entry: Descriptor;
  readonly node: ManifestNode;
}

/** Every entry of an image or image index. Cache indexes and their shards are none. */
async function* listedImages(layout: OciLayout, graph: ImageGraph): AsyncGenerator<Listed> {
  for (const { descriptor } of layout.entries()) {
    if (!isManifestMediaType(descriptor.mediaType) || refName(descriptor) === CACHE_TAG) continue;
    const node = await graph.node(descriptor);
    if (node.kind !== 'cache index' && node.kind !== 'shard') yield { entry: descriptor, node };
  }
}

/**
 * The entries of images and image indexes that refer to a blob or manifest, those with a name first.
 *
 * @throws LayercacheError `STORAGE` when it cannot be told what an image refers to
 */
export async function imagesThatNeed(layout: OciLayout, digest: Digest): Promise<Descriptor[]> {
  const found: Descriptor[] = [];
  for await (const { entry, node } of listedImages(layout, new ImageGraph(layout))) {
    if ([...node.blobs, ...node.manifests].some((part) => part.digest === digest)) found.push(entry);
  }
  return found.sort((a, b) => Number(refName(a) === undefined) - Number(refName(b) === undefined));
}

/** Images that have no name, that are in no index, and that do not refer to another image. */
export async function unnamedImages(layout: OciLayout): Promise<Descriptor[]> {
  const named = new Set<Digest>();
  const children = new Set<Digest>();
  const unnamed = new Map<Digest, Descriptor>();
  for await (const { entry, node } of listedImages(layout, new ImageGraph(layout))) {
    if (refName(entry) !== undefined) named.add(entry.digest);
    else if (node.subject === undefined) unnamed.set(entry.digest, entry);
    for (const { digest } of node.manifests) children.add(digest);
  }
  return [...unnamed.values()].filter(({ digest }) => !named.has(digest) && !children.has(digest));
}
