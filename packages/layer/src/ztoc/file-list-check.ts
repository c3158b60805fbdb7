import { LayercacheError } from '@layercache/oci';
import { xattrs, type SparseMap, type TarEntry } from '../tar/entry.js';
import { TarReader } from '../tar/tar-reader.js';
import type { Ztoc } from './ztoc.js';

/**
 * Holds the file list of a layer index against the tar of its layer, which streams by. It says nothing of the tar
 * itself: the list is as true as the tar is verified.
 */
export class FileListCheck {
  readonly #listed: Ztoc['entries'];
  readonly #uncompressedSize: number;
  readonly #reader = new TarReader((entry) => {
    this.#compare(entry);
  });
  #met = 0;

  constructor({ entries, uncompressedSize }: Pick<Ztoc, 'entries' | 'uncompressedSize'>) {
    this.#listed = entries;
    this.#uncompressedSize = uncompressedSize;
  }

  /**
   * Takes the next bytes of the tar.
   *
   * @throws LayercacheError `COMPRESSION_INVALID` when the list has another entry; `ARCHIVE_INVALID` when the bytes are no tar
   */
  push(bytes: Uint8Array): void {
    this.#reader.push(bytes);
  }

  /** @throws LayercacheError `COMPRESSION_INVALID` when the list has more entries, or another end; `ARCHIVE_INVALID` */
  finish(): void {
    this.#reader.finish();
    if (this.#met !== this.#listed.length)
      refuse(`lists ${this.#listed.length} entries, where the tar has ${this.#met}`);
    if (this.#reader.end !== this.#uncompressedSize)
      refuse(`says that the tar ends at byte ${this.#uncompressedSize}, and it ends at ${this.#reader.end}`);
  }

  #compare(entry: TarEntry): void {
    const listed = this.#listed[this.#met];
    this.#met++;
    if (listed === undefined) refuse(`lists ${this.#listed.length} entries, where the tar has more`);
    if (!isSame(listed, entry))
      refuse(`lists ${JSON.stringify(listed.name)}, where the tar has another entry at byte ${entry.offset}`);
  }
}

/**
 * The tar as it is, held against the file list of an index on the way.
 *
 * @throws LayercacheError as {@link FileListCheck}; errors of the tar as they are
 */
export async function* withFileListCheck(
  tar: AsyncIterable<Uint8Array>,
  ztoc: Pick<Ztoc, 'entries' | 'uncompressedSize'>,
): AsyncGenerator<Uint8Array> {
  const check = new FileListCheck(ztoc);
  for await (const bytes of tar) {
    check.push(bytes);
    yield bytes;
  }
  check.finish();
}

function refuse(problem: string): never {
  throw new LayercacheError(
    'COMPRESSION_INVALID',
    `the index of the layer ${problem}: it is wrong; index the layer again`,
  );
}

const FIELDS = [
  'name',
  'type',
  'linkname',
  'offset',
  'size',
  'mode',
  'uid',
  'gid',
  'uname',
  'gname',
  'devmajor',
  'devminor',
] as const;

/** Whether two entries make the same file. Other pax records than attributes may differ: tools keep what they like. */
function isSame(a: TarEntry, b: TarEntry): boolean {
  return (
    FIELDS.every((field) => a[field] === b[field]) &&
    a.mtime.seconds === b.mtime.seconds &&
    a.mtime.nanoseconds === b.mtime.nanoseconds &&
    isSameMap(a.sparse, b.sparse) &&
    hasSameAttributes(a, b)
  );
}

function isSameMap(a: SparseMap | undefined, b: SparseMap | undefined): boolean {
  if (a === undefined || b === undefined) return a === b;
  return (
    a.size === b.size &&
    a.segments.length === b.segments.length &&
    a.segments.every(({ offset, size }, at) => {
      const other = b.segments[at];
      return other?.offset === offset && other.size === size;
    })
  );
}

function hasSameAttributes(a: TarEntry, b: TarEntry): boolean {
  if (a.pax.size === 0 && b.pax.size === 0) return true;
  const [ours, theirs] = [xattrs(a), xattrs(b)];
  return ours.size === theirs.size && [...ours].every(([key, value]) => theirs.get(key) === value);
}
