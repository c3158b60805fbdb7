import { lstat, readdir } from 'node:fs/promises';
import { join, sep } from 'node:path';

/** Bytes of the files in the folder of a cache, by what they are for. */
export interface DiskUse {
  readonly total: number;
  readonly blobs: number;
  /** `index.json` and `oci-layout`. */
  readonly index: number;
  /** What is being written, and what is left of interrupted downloads. */
  readonly ingest: number;
  /** The index map, the journal, and all else below `.layercache`. */
  readonly sideState: number;
}

/** Counts every file below a folder as it is now. */
export async function diskUse(dir: string): Promise<DiskUse> {
  const use = { blobs: 0, index: 0, ingest: 0, sideState: 0 };
  const ingest = join('.layercache', 'ingest') + sep;
  for (const entry of await readdir(dir, { recursive: true, withFileTypes: true })) {
    if (entry.isDirectory()) continue;
    const path = join(entry.parentPath, entry.name);
    const size = await sizeOf(path);
    const relative = path.slice(join(dir, sep).length);
    if (relative.startsWith(`blobs${sep}`)) use.blobs += size;
    else if (relative.startsWith(ingest)) use.ingest += size;
    else if (relative.startsWith(`.layercache${sep}`)) use.sideState += size;
    else use.index += size;
  }
  return { total: use.blobs + use.index + use.ingest + use.sideState, ...use };
}

/** A file that has gone since it was listed takes no space. */
async function sizeOf(path: string): Promise<number> {
  try {
    return (await lstat(path)).size;
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return 0;
    throw error;
  }
}
