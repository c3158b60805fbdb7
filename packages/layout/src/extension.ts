import type { Descriptor, Digest } from '@layercache/oci';
import type { Entry } from './entry.js';

export interface DeriveContext {
  /** Everything that will stand in `index.json`, derived entries of the last commit included. Built when asked for. */
  readonly entries: readonly Descriptor[];
  /** Derived entries of before that another one has replaced in `index.json`, not by this commit. */
  readonly superseded: readonly Descriptor[];
  /** Digests whose pair this machine proved. */
  readonly proven: ReadonlySet<Digest>;
  /** Digests whose entries changed since the last commit; undefined: unknown, assume all. */
  readonly changed: ReadonlySet<Digest> | undefined;
  /** A small document, verified. */
  readBlob(digest: Digest): Promise<Uint8Array>;
  writeBlob(bytes: Uint8Array): Promise<Digest>;
}

export interface Derived {
  /** Entries to add or replace. A name that another digest had moves here; that digest's entry stays without it. */
  readonly put: readonly Descriptor[];
  /** Digests whose entries are dropped: what was derived before. */
  readonly drop: readonly Digest[];
  /** Blobs that are superseded. They go some time after the new `index.json` is in place. */
  readonly unlink: readonly Digest[];
  /** Blobs that what was derived consists of: they stay, also where they were superseded before. */
  readonly keep?: readonly Digest[];
}

export interface AdoptContext {
  /** Manifests and indexes that were not seen before. */
  readonly manifests: readonly Descriptor[];
  /** A small document, verified. */
  readBlob(digest: Digest): Promise<Uint8Array>;
  hasBlob(digest: Digest, size?: number): Promise<boolean>;
  lookup(key: Digest): readonly Entry[];
  /** The entry that has this name. */
  tagged(name: string): Entry | undefined;
}

/**
 * How the owner of a layout adds what can be derived from its entries to each commit, and takes up what other
 * tools put in.
 */
export interface LayoutExtension {
  /**
   * The names of the entries it derives. They do not count as entries where those are limited, no other tool moves them,
   * and the first one tells which commit an `index.json` that another tool wrote came from.
   */
  readonly names?: readonly string[];
  /** Called in a commit, under the exclusive lock, before `index.json` is written. */
  derive(context: DeriveContext): Promise<Derived>;
  /**
   * The entry for a document that {@link derive} made from all entries, with its name; undefined for any other bytes.
   * Without it, nothing is found again when `index.json` and the index map are both lost.
   */
  recognise?(bytes: Uint8Array, digest: Digest): Descriptor | undefined;
  /**
   * Whether the bytes of an entry can be had again from elsewhere: it stays when its blob turns out to be corrupt and
   * goes. Default: they cannot.
   */
  isElsewhere?(entry: Descriptor): boolean;
  /** Called at open, and after another tool changed `index.json`. Returns entries to add, as claims. */
  adopt(context: AdoptContext): Promise<readonly Descriptor[]>;
}
