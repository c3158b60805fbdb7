import type { Digest } from '@layercache/oci';

/**
 * What can go: a tar or a layer index that can be made again from what stays; an image with all that no other needs;
 * a blob that belongs to no image.
 */
export type CandidateKind = 'tar' | 'layer-index' | 'image' | 'blob';

/** One thing that can go as a whole. */
export interface Candidate {
  readonly kind: CandidateKind;
  /** Of the blob, or of the image's manifest. */
  readonly digest: Digest;
  /** Of an image. */
  readonly names: readonly string[];
  /** Bytes on disk that go with it, when nothing went before. */
  readonly bytes: number;
  /** Last use, to the second where room is limited, else to the hour. */
  readonly usedAt: Date;
  /** When its time is over, where one was set. */
  readonly expiresAt: Date | undefined;
  /** It can be made again from what is here, without a network. */
  readonly rebuildable: boolean;
}

export interface EvictionContext {
  readonly now: Date;
  /** The room is for something that can itself be made again from what is here. */
  readonly derived: boolean;
}

/** An order in which things go. Pinned images, and what is just being written, are no candidates. */
export interface EvictionStrategy {
  readonly name: string;
  /** The candidates in the order in which they go. Those left out stay. */
  rank(candidates: readonly Candidate[], context: EvictionContext): Iterable<Candidate>;
}
