import { claimedDiffID, isManifestMediaType, refName, type Descriptor, type Digest } from '@layercache/oci';
import { compareEntries, normalise, withoutName, type Entry } from './entry.js';
import { EntryTable } from './entry-table.js';
import { isSystemError, type FileSystem } from './file-system.js';
import { emptyHead, parseIndexDocument, type IndexDocument, type IndexHead } from './index-document.js';
import { Journal } from './journal.js';
import type { Change } from './journal-format.js';
import { openMapFile, type MapFile } from './map-file.js';
import { MapEncoder, MapInvalid, decodeHeader, type IndexIdentity } from './map-format.js';
import { MapReader, MemoryPages } from './map-reader.js';

export interface StatePaths {
  readonly index: string;
  readonly map: string;
  readonly journal: string;
  readonly blob: (digest: Digest) => string;
}

/** What another tool's edit of `index.json` brought and took. */
export interface Edit {
  /** Manifests and indexes that were not there before; all of them when entries went missing. */
  readonly arrived: readonly Descriptor[];
  /** Entries of before that are missing although their blob is here. They are kept. */
  readonly kept: readonly Entry[];
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
      const merged = merge(files, paths, document, map?.reader);
      const snapshot = new Snapshot(files, paths, {
        ...merged,
        head: document.head,
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

const noDocument: IndexDocument = { head: emptyHead, manifests: [] };

/**
 * An `index.json` that another tool wrote, with what only the map of before knows. Names are as the tool left
 * them. An entry that went missing is kept for as long as its blob is here: other tools' garbage collection drops
 * what has no name.
 */
function merge(
  files: FileSystem,
  paths: StatePaths,
  document: IndexDocument,
  before: MapReader | undefined,
): { reader: MapReader; edit: Edit } {
  const unique = new Map<string, Entry>();
  const digests = new Set<Digest>();
  const manifests: Descriptor[] = [];
  const arrived: Descriptor[] = [];
  for (const given of document.manifests) {
    const descriptor = normalise(given);
    const { digest } = descriptor;
    const known = before?.of(digest) ?? [];
    const diffID = claimedDiffID(descriptor);
    const proven = known.some((entry) => entry.proven && claimedDiffID(entry.descriptor) === diffID);
    unique.set(`${digest} ${refName(descriptor) ?? ''}`, { descriptor, proven });
    digests.add(digest);
    if (!isManifestMediaType(descriptor.mediaType)) continue;
    manifests.push(descriptor);
    if (known.length === 0) arrived.push(descriptor);
  }
  const kept: Entry[] = [];
  let lost = false;
  for (const entry of before?.all() ?? []) {
    const { digest } = entry.descriptor;
    if (digests.has(digest)) continue;
    lost = true;
    if (inode(files, paths.blob(digest)) === undefined) continue;
    kept.push({ ...entry, descriptor: withoutName(entry.descriptor) });
  }
  const encoder = new MapEncoder(0);
  for (const entry of [...unique.values()].sort(compareEntries)) encoder.add(entry);
  const { pages, header } = encoder.finish(document.head, {
    index: { ino: 0n, size: 0n, mtimeNs: 0n },
    indexDigest: `sha256:${'0'.repeat(64)}`,
    foreign: true,
  });
  const bytes = Buffer.concat([header, ...pages]);
  return {
    reader: new MapReader(decodeHeader(header), new MemoryPages(bytes)),
    edit: { arrived: lost ? manifests : arrived, kept },
  };
}

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
