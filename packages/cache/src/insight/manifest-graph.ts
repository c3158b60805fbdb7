import type { Descriptor, Digest } from '@layercache/oci';
import type { OciLayout } from '@layercache/layout';
import { ImageGraph, type ManifestNode } from '../images/image-graph.js';

/** Which manifest names what, from some manifests on, at any depth. */
export class ManifestGraph {
  readonly #nodes = new Map<Digest, ManifestNode>();
  readonly #referrers = new Map<Digest, Digest[]>();

  /** Reads each manifest once. */
  static async read(
    layout: OciLayout,
    roots: Iterable<Descriptor>,
    signal?: AbortSignal,
  ): Promise<ManifestGraph> {
    const graph = new ManifestGraph();
    for await (const node of new ImageGraph(layout).below(roots, signal)) {
      const { digest } = node.descriptor;
      graph.#nodes.set(digest, node);
      if (node.subject === undefined) continue;
      const referrers = graph.#referrers.get(node.subject);
      if (referrers === undefined) graph.#referrers.set(node.subject, [digest]);
      else referrers.push(digest);
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
