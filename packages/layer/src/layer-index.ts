import type { Digest } from '@layercache/oci';
import type { Ztoc } from './ztoc/ztoc.js';

/** What one pass over a layer found out: all of it proven, since all of it was hashed here. */
export interface LayerIndex {
  /** Of the bytes as they were given. */
  readonly digest: Digest;
  /** Bytes as they were given. */
  readonly size: number;
  readonly diffID: Digest;
  /** Bytes of the tar. */
  readonly tarSize: number;
  /** Describes the layer in the form it was given in; of a zstd layer, which has no checkpoints, its tar. */
  readonly ztoc: Ztoc;
}
