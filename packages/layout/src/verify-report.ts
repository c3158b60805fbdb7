import type { Descriptor, Digest } from '@layercache/oci';
import type { FileSystem } from './file-system.js';
import type { OciLayout } from './oci-layout.js';

export type VerifyStepName =
  | 'layout'
  | 'index'
  | 'map'
  | 'journal'
  | 'sizes'
  | 'digests'
  | 'missing'
  | 'pairs'
  | 'orphans'
  | 'temporary files'
  /** By the owner of a layout who knows what images need. */
  | 'images';

/**
 * - `corrupted`: the bytes of a blob were read to the end, and are not its digest's
 * - `missing`: an entry has no blob here, none elsewhere, and nothing it could be derived from
 * - `invalid`: what is written down is wrong: a size, a pair, the index map, the journal, the name of a file
 * - `orphaned`: a blob has no entry
 * - `unreadable`: the system refused to read something, so nothing is known about it, and it stays as it is
 */
export type VerifyProblemKind = 'corrupted' | 'missing' | 'invalid' | 'orphaned' | 'unreadable';

export interface VerifyProblem {
  readonly step: VerifyStepName;
  readonly kind: VerifyProblemKind;
  /** What it is about, where that is one blob. */
  readonly digest?: Digest;
  /** One line. */
  readonly message: string;
  readonly repaired: boolean;
}

export interface VerifyStep {
  readonly name: VerifyStepName;
  /** How many things were looked at. */
  readonly checked: number;
  readonly problems: number;
  readonly milliseconds: number;
}

export interface VerifyReport {
  readonly steps: readonly VerifyStep[];
  readonly problems: readonly VerifyProblem[];
  /** How many problems of each kind. */
  readonly found: Readonly<Record<VerifyProblemKind, number>>;
  /** Entries whose blob is not here. That alone is no problem: a remote may have it. */
  readonly absent: number;
  /** Bytes that were hashed. */
  readonly bytes: number;
  /** Nothing is wrong, or everything that was has been repaired. */
  readonly ok: boolean;
}

export interface VerifyOptions {
  /** Drop what is broken, fetch it again where `refetch` can, adopt blobs without an entry. Default: only report. */
  readonly repair?: boolean;
  /** How many blobs are read at the same time. Default: 4. */
  readonly concurrency?: number;
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: (progress: {
    readonly step: VerifyStepName;
    readonly done: number;
    readonly total: number;
  }) => void;
  /** Decompresses a layer and hashes it. Without it, pairs are not checked. */
  readonly checkPair?: (descriptor: Descriptor, layout: OciLayout) => Promise<Digest>;
  /** Whether a blob that is not here can be had elsewhere. Without it, no blob is missing. */
  readonly isElsewhere?: (descriptor: Descriptor) => Promise<boolean>;
  /** Blobs that need no entry, because the layout's owner derives them from the entries. */
  readonly derived?: (layout: OciLayout) => Promise<ReadonlySet<Digest>>;
  /** Brings a blob back from where it came from. False, or an error: it cannot be had. */
  readonly refetch?: (descriptor: Descriptor) => Promise<boolean>;
  /**
   * Blobs without an entry that are younger are not reported, as someone may be writing them, in ms. Default: an hour. A
   * repair adopts them all the same, unless a writer pins them.
   */
  readonly grace?: number;
  readonly files?: FileSystem;
}
