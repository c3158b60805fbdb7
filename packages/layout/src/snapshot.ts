import type { Digest } from '@layercache/oci';
import { EntryTable, noEntries } from './entry-table.js';
import { isSystemError, type FileSystem } from './file-system.js';
import { readHistory } from './history.js';
import { emptyHead, parseIndexDocument, type IndexDocument, type IndexHead } from './index-document.js';
import { Journal } from './journal.js';
import type { Change } from './journal-format.js';
import { openMapFile, type MapFile } from './map-file.js';
import { MapInvalid, type IndexIdentity } from './map-format.js';
import type { MapReader } from './map-reader.js';
import { mergeEdit, type Edit } from './merge-edit.js';

export interface StatePaths {
  readonly index: string;
  readonly map: string;
  readonly journal: string;
  readonly history: string;
  readonly blob: (digest: Digest) => string;
  /** Names of entries that commits derive. */
  readonly derivedNames: readonly string[];
}

interface Parts {
  readonly reader: MapReader;
  readonly head: IndexHead;
  readonly index: IndexIdentity | undefined;
  readonly map: MapFile | undefined;
  /** Of the map file, also when it is of no use. */
  readonly mapInode: bigint | undefined;
  readonly journal: Journal | undefined;
  readonly edit: Edit | undefined;
  readonly left?: number;
}

/** What the layout held when its files were opened, and all that was appended to the journal since. */
export class Snapshot {
  readonly table: EntryTable;
  readonly reader: MapReader;
  readonly head: IndexHead;
  /** The `index.json` this mirrors; undefined when there was none. */
  readonly index: IndexIdentity | undefined;
  /** How that `index.json` differs from what the map knows. Undefined: it does not. */
  readonly edit: Edit | undefined;
  readonly journal: Journal | undefined;
  /** Entries of that `index.json` that were left out, because no blob can have their size. */
  readonly left: number;
  readonly #files: FileSystem;
  readonly #paths: StatePaths;
  readonly #map: MapFile | undefined;
  readonly mapInode: bigint | undefined;
  #holders = 1;

  constructor(files: FileSystem, paths: StatePaths, parts: Parts) {
    this.#files = files;
    this.#paths = paths;
    this.#map = parts.map;
    this.mapInode = parts.mapInode;
    this.reader = parts.reader;
    this.head = parts.head;
    this.index = parts.index;
    this.edit = parts.edit;
    this.journal = parts.journal;
    this.left = parts.left ?? 0;
    this.table = new EntryTable(parts.reader);
    for (const { descriptor, proven } of parts.edit?.kept ?? []) this.table.put(descriptor, proven);
    this.catchUp();
  }

  get generation(): number {
    return Math.max(this.#map?.reader.header.generation ?? 0, this.journal?.header.generation ?? 0);
  }

  /** The journal belongs to another map: what is in it was committed, and nothing may be appended. */
  get stale(): boolean {
    return (
      this.journal !== undefined &&
      this.#map !== undefined &&
      this.journal.header.generation !== this.#map.reader.header.generation
    );
  }

  /** Others may make a new journal without a word in this one. */
  get unsettled(): boolean {
    return this.journal === undefined || this.journal.superseded || this.stale;
  }

  /** Applies what was appended to the journal since the last call. */
  catchUp(): void {
    const changes = this.journal?.read() ?? [];
    if (!this.stale) for (const change of changes) apply(this.table, change);
  }

  /** Map and journal are those that everyone uses: what is appended now is seen by all. */
  isCurrent(): boolean {
    return (
      this.edit === undefined &&
      this.index !== undefined &&
      !this.unsettled &&
      this.#map !== undefined &&
      this.#map.ino === inode(this.#files, this.#paths.map) &&
      this.journal?.ino === inode(this.#files, this.#paths.journal)
    );
  }

  /** Neither another handle nor another tool has replaced a file. */
  isOnDisk(): boolean {
    return (
      this.mapInode === inode(this.#files, this.#paths.map) &&
      this.journal?.ino === inode(this.#files, this.#paths.journal) &&
      sameIndex(this.index, indexIdentity(this.#files, this.#paths.index))
    );
  }

  /** Keeps the files open until the same number of releases. */
  retain(): void {
    this.#holders++;
  }

  release(): void {
    if (--this.#holders > 0) return;
    this.journal?.close();
    if (this.#map !== undefined) this.#files.closeSync(this.#map.fd);
  }
}

function apply(table: EntryTable, change: Change): void {
  if (change.type === 'put') table.put(change.entry.descriptor, change.entry.proven);
  else if (change.type === 'remove') table.remove(change.digest);
  else if (change.type === 'untag') table.untag(change.name);
}

/**
 * Opens the files as they are, without the lock. Reads a few pages, unless the map does not mirror `index.json`:
 * then all of that, into memory.
 *
 * @param damagedMap the inode of a map that turned out to be damaged
 * @param edited an `index.json` that says something else than its map, although it looks like the one it mirrors
 * @throws LayercacheError `LAYOUT_INVALID` when `index.json` is broken
 */
export function openSnapshot(
  files: FileSystem,
  paths: StatePaths,
  damagedMap?: bigint,
  edited?: IndexIdentity,
): Snapshot {
  for (let attempt = 0; ; attempt++) {
    // In this order: a commit puts the map in place before the journal.
    const journal = Journal.open(files, paths.journal);
    let map: MapFile | undefined;
    let opened = false;
    try {
      const mapInode = inode(files, paths.map);
      map = mapInode === damagedMap ? undefined : tryOpenMap(files, paths.map);
      if (map !== undefined && map.ino !== mapInode) continue;
      const index = indexIdentity(files, paths.index);
      const overtaken =
        journal !== undefined &&
        map !== undefined &&
        journal.header.generation < map.reader.header.generation;
      if (overtaken && attempt < 3) continue;
      // A deleted index.json takes nothing with it that the map knows: the next commit writes it again.
      const isMirrored =
        map !== undefined && (index === undefined || sameIndex(index, map.reader.header.index));
      if (map !== undefined && isMirrored && (index === undefined || !sameIndex(index, edited))) {
        const { reader } = map;
        const snapshot = new Snapshot(files, paths, {
          reader,
          head: reader.head(),
          index,
          map,
          mapInode,
          journal,
          edit: undefined,
        });
        opened = true;
        return snapshot;
      }
      const document =
        index === undefined ? noDocument : parseIndexDocument(files.readFileSync(paths.index), paths.index);
      if (!sameIndex(index, indexIdentity(files, paths.index))) continue;
      const isHere = (digest: Digest): boolean => inode(files, paths.blob(digest)) !== undefined;
      const history = readHistory(files, paths.history);
      const before = map?.reader ?? noEntries;
      const merged = mergeEdit({
        document,
        before,
        hasBase: map !== undefined,
        history,
        derivedNames: paths.derivedNames,
        isHere,
      });
      const snapshot = new Snapshot(files, paths, {
        ...merged,
        head: document.head,
        left: document.left,
        index,
        map,
        mapInode,
        journal,
      });
      opened = true;
      return snapshot;
    } catch (error) {
      if (!(error instanceof MapInvalid)) throw error;
      damagedMap = map?.ino;
    } finally {
      if (!opened) {
        journal?.close();
        if (map !== undefined) files.closeSync(map.fd);
      }
    }
  }
}

const noDocument: IndexDocument = { head: emptyHead, manifests: [], left: 0 };

function tryOpenMap(files: FileSystem, path: string): MapFile | undefined {
  try {
    return openMapFile(files, path);
  } catch (error) {
    if (error instanceof MapInvalid || isSystemError(error, 'ENOENT', 'ENOTDIR')) return undefined;
    throw error;
  }
}

export function indexIdentity(files: FileSystem, path: string): IndexIdentity | undefined {
  try {
    const { ino, size, mtimeNs } = files.statSync(path);
    return { ino, size, mtimeNs };
  } catch (error) {
    if (isSystemError(error, 'ENOENT', 'ENOTDIR')) return undefined;
    throw error;
  }
}

export function sameIndex(a: IndexIdentity | undefined, b: IndexIdentity | undefined): boolean {
  return a?.ino === b?.ino && a?.size === b?.size && a?.mtimeNs === b?.mtimeNs;
}

function inode(files: FileSystem, path: string): bigint | undefined {
  try {
    return files.statSync(path).ino;
  } catch (error) {
    if (isSystemError(error, 'ENOENT', 'ENOTDIR')) return undefined;
    throw error;
  }
}
