import type { Digest } from '@layercache/oci';
import type { Checkpoint } from '../deflate/checkpoint.js';
import type { TarEntry } from '../tar/entry.js';

/** The version of SOCI's format that is read and written. */
export const ZTOC_VERSION = '0.9';

/** A layer index: SOCI's zTOC, a table of contents with the checkpoints to reach what it lists. */
export interface Ztoc {
  /** Who made it. */
  readonly builder: string;
  readonly compression: 'gzip' | 'uncompressed';
  /** Bytes of the layer as it is stored. */
  readonly compressedSize: number;
  /** Bytes of the tar up to the end of its end marker: padding behind that does not count. */
  readonly uncompressedSize: number;
  /** Bytes of output between checkpoints, at least. */
  readonly spanSize: number;
  /** Of a gzip layer; a plain tar has spans of `spanSize` bytes exactly. */
  readonly checkpoints: readonly Checkpoint[];
  /** Digest of each span's compressed bytes, the byte it shares with the one before included. */
  readonly spanDigests: readonly Digest[];
  /** In tar order. */
  readonly entries: readonly TarEntry[];
}
