import { LayercacheError } from '@layercache/oci';

/** What a tar may ask of a reader before it is refused. Far above any layer met, far below this machine. */
export interface TarLimits {
  /** Entries in one layer. */
  readonly entries: number;
  /** Bytes of one pax header, long name or long link. Go's reader, and so every container runtime, stops here. */
  readonly header: number;
  /** Bytes of one name or link target. */
  readonly name: number;
  /** Bytes of all names, links and pax records of a layer. */
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

/** @throws LayercacheError `ARCHIVE_INVALID` */
export function refuse(offset: number, problem: string): never {
  throw new LayercacheError(
    'ARCHIVE_INVALID',
    `the tar is not valid at byte ${offset}: ${problem}; the layer cannot be read`,
  );
}
