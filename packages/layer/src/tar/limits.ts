import { LayercacheError } from '@layercache/oci';

/** What a tar may ask of a reader before it is refused. Far above any layer met, far below this machine. */
export interface TarLimits {
  /** Entries in one layer. */
  readonly entries: number;
  /** Bytes of one pax header, long name or long link. Go's reader, and so every container runtime, stops here. */
  readonly header: number;
  /** Bytes of one name or link target. */
  readonly name: number;
  /**
   * Bytes of all names, links and pax records of a layer, where a record costs {@link RECORD_COST} more, and a segment
   * of a sparse file {@link SEGMENT_COST}.
   */
  readonly metadata: number;
  /** Segments of one sparse file. */
  readonly segments: number;
}

export const TAR_LIMITS: TarLimits = {
  entries: 1_000_000,
  header: 1 << 20,
  name: 64 << 10,
  metadata: 256 << 20,
  segments: 100_000,
};

/** Bytes that a pax record counts as, beside its text: about what a process needs to hold it. */
export const RECORD_COST = 64;

/** Bytes that a segment of a sparse file counts as. */
export const SEGMENT_COST = 64;

/** What is left of `TarLimits.metadata` for the entries of a layer that are still to come. */
export class MetadataBudget {
  #left: number;

  constructor(limit: number) {
    this.#left = limit;
  }

  /** Takes some bytes of it; returns whether there were as many. */
  take(bytes: number): boolean {
    this.#left -= bytes;
    return this.#left >= 0;
  }
}

/** @throws LayercacheError `ARCHIVE_INVALID` */
export function refuse(offset: number, problem: string): never {
  throw new LayercacheError(
    'ARCHIVE_INVALID',
    `the tar is not valid at byte ${offset}: ${problem}; the layer cannot be read`,
  );
}
