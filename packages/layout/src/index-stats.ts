import { join } from 'node:path';
import { refName } from '@layercache/oci';
import { isSystemError, nodeFileSystem, type FileSystem } from './file-system.js';
import { Journal } from './journal.js';
import { openMapFile } from './map-file.js';
import { MapInvalid } from './map-format.js';
import type { OciLayout } from './oci-layout.js';
import { indexIdentity, sameIndex } from './snapshot.js';

/** The three files that say what a layout holds, and how much of it each of them says. Sizes in bytes. */
export interface IndexStats {
  readonly entries: number;
  /** Entries that have a name. */
  readonly names: number;
  readonly index: { readonly size: number; readonly writtenAt: Date } | undefined;
  readonly map:
    | {
        readonly size: number;
        /** `stale`: another tool wrote `index.json` since. `damaged`: `index.json` is read in its place. */
        readonly state: 'current' | 'stale' | 'damaged';
        readonly generation: number;
        readonly records: number;
        /** Digests and diffIDs that it finds in one step. */
        readonly slots: number;
      }
    | undefined;
  /** What was put or removed since the last commit. */
  readonly journal:
    | { readonly size: number; readonly generation: number; readonly changes: number; readonly torn: number }
    | undefined;
}

export function indexStats(layout: OciLayout, files: FileSystem = nodeFileSystem): IndexStats {
  const side = join(layout.dir, '.layercache');
  const index = join(layout.dir, 'index.json');
  let entries = 0;
  let names = 0;
  for (const { descriptor } of layout.entries()) {
    entries++;
    if (refName(descriptor) !== undefined) names++;
  }
  return {
    entries,
    names,
    index: indexFacts(files, index),
    map: mapFacts(files, join(side, 'map'), index),
    journal: journalFacts(files, join(side, 'journal')),
  };
}

function indexFacts(files: FileSystem, path: string): IndexStats['index'] {
  const identity = indexIdentity(files, path);
  if (identity === undefined) return undefined;
  return { size: Number(identity.size), writtenAt: new Date(Number(identity.mtimeNs / 1_000_000n)) };
}

function mapFacts(files: FileSystem, path: string, index: string): IndexStats['map'] {
  try {
    const { fd, reader } = openMapFile(files, path);
    try {
      const { generation, recordCount, slotCount, index: mirrored } = reader.header;
      const current = sameIndex(mirrored, indexIdentity(files, index));
      return {
        size: Number(files.fstatSync(fd).size),
        state: current ? 'current' : 'stale',
        generation,
        records: recordCount,
        slots: slotCount,
      };
    } finally {
      files.closeSync(fd);
    }
  } catch (error) {
    if (isSystemError(error, 'ENOENT', 'ENOTDIR')) return undefined;
    if (!(error instanceof MapInvalid)) throw error;
    const size = Number(files.statSync(path).size);
    return { size, state: 'damaged', generation: 0, records: 0, slots: 0 };
  }
}

function journalFacts(files: FileSystem, path: string): IndexStats['journal'] {
  const journal = Journal.open(files, path);
  if (journal === undefined) return undefined;
  try {
    const changes = journal.read().length;
    const { generation } = journal.header;
    return { size: Number(files.statSync(path).size), generation, changes, torn: journal.torn };
  } finally {
    journal.close();
  }
}
