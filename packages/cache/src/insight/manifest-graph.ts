import {
  LayercacheError,
  MAX_MANIFEST_SIZE,
  digestAlgorithm,
  digestOf,
  isManifestMediaType,
  throwIfAborted,
  type Descriptor,
  type Digest,
} from '@layercache/oci';
import type { OciLayout } from '@layercache/layout';
import { parseManifest } from '../images/manifest.js';
import { isLayerDescriptor } from '../layer-record.js';

/** What one manifest names. */
export interface ManifestNode {
  readonly descriptor: Descriptor;
  /** Images of an index; config and layers of an image. */
  readonly children: readonly Descriptor[];
  /** Those of the children that are layers. */
  readonly layers: readonly Descriptor[];
  readonly subject: Digest | undefined;
}

/** Which manifest names what, from some manifests on, at any depth. */
export class ManifestGraph {
  readonly #nodes = new Map<Digest, ManifestNode>();
  readonly #referrers = new Map<Digest, Digest[]>();

  /** Reads each manifest once. One that is not here, or that nobody can read, names nothing. */
  static async read(
    layout: OciLayout,
    roots: Iterable<Descriptor>,
    signal?: AbortSignal,
  ): Promise<ManifestGraph> {
    const graph = new ManifestGraph();
    const queue = [...roots];
    for (let next = queue.pop(); next !== undefined; next = queue.pop()) {
      throwIfAborted(signal);
      if (graph.#nodes.has(next.digest) || !isManifestMediaType(next.mediaType)) continue;
      const node = await readNode(layout, next);
      graph.#nodes.set(next.digest, node);
      queue.push(...node.children);
      if (node.subject === undefined) continue;
      graph.#referrers.set(node.subject, [...graph.referrers(node.subject), next.digest]);
    }
    return graph;
  }

  get nodes(): Iterable<ManifestNode> {
    return this.#nodes.values();
  }

  node(digest: Digest): ManifestNode | undefined {
    return this.#nodes.get(digest);
  }

  /** Manifests whose subject it is. */
  referrers(digest: Digest): readonly Digest[] {
    return this.#referrers.get(digest) ?? [];
  }
}

async function readNode(layout: OciLayout, descriptor: Descriptor): Promise<ManifestNode> {
  const nothing = { descriptor, children: [], layers: [], subject: undefined };
  try {
    const bytes = await readUntouched(layout, descriptor.digest);
    if (bytes === undefined) return nothing;
    const parsed = parseManifest(descriptor, bytes);
    if (parsed.kind === 'index') {
      const { manifests, subject } = parsed.index;
      return { descriptor, children: manifests, layers: [], subject: subject?.digest };
    }
    const { config, layers, subject } = parsed.manifest;
    return {
      descriptor,
      children: [config, ...layers],
      layers: layers.filter(isLayerDescriptor),
      subject: subject?.digest,
    };
  } catch (error) {
    if (error instanceof LayercacheError && error.code !== 'ABORTED') return nothing;
    throw error;
  }
}

/** The bytes, if they are its digest's. Who looks changes nothing: no access time, and no corrupt blob goes. */
async function readUntouched(layout: OciLayout, digest: Digest): Promise<Uint8Array | undefined> {
  const size = await layout.blobSize(digest);
  if (size === undefined || size > MAX_MANIFEST_SIZE) return undefined;
  const chunks: Uint8Array[] = [];
  for await (const chunk of layout.read(digest, { verify: false, touch: false }))
    chunks.push(chunk as Buffer);
  const bytes = Buffer.concat(chunks);
  return digestOf(bytes, digestAlgorithm(digest)) === digest ? bytes : undefined;
}
