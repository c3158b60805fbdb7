import { inflateLayer, type ByteReader } from '@layercache/layer';
import type { OciLayout } from '@layercache/layout';
import { claimedDiffID, layerForm, type Descriptor } from '@layercache/oci';
import type { IndexStore } from './index-store.js';
import type { StoredLayerIndex } from './stored-index.js';

export interface ParallelTar {
  readonly index: StoredLayerIndex;
  /** Not verified: whoever receives it hashes it. */
  readonly tar: AsyncIterable<Uint8Array>;
}

/**
 * The tar of a gzip layer, inflated on all cores. Undefined when this machine has not indexed it, or it is too small to
 * come apart. The layer itself must be here.
 */
export async function parallelTar(
  layout: OciLayout,
  store: IndexStore,
  { mediaType, digest, size, annotations }: Descriptor,
  signal: AbortSignal | undefined,
): Promise<ParallelTar | undefined> {
  const diffID = claimedDiffID({ mediaType, digest, size, annotations });
  if (diffID === undefined || layerForm(mediaType) !== 'tar+gzip') return undefined;
  const index = await store.find(diffID, [{ digest, form: 'tar+gzip' }], { provenOnly: true, signal });
  if (index === undefined || index.ztoc.checkpoints.length < 2) return undefined;
  const bytes: ByteReader = {
    size,
    // Who reads a span lets go of it when aborted: many are read at once, and no signal likes many listeners.
    read: (start, end) => layout.read(digest, { start, end }) as AsyncIterable<Uint8Array>,
  };
  return { index, tar: inflateLayer({ ztoc: index.ztoc, bytes }, { signal }) };
}
