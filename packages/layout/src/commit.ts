import { createHash, randomInt } from 'node:crypto';
import { dirname } from 'node:path';
import type { Digest } from '@layercache/oci';
import type { Entry } from './entry.js';
import { storageError, syncFolder, writeFully, type FileSystem } from './file-system.js';
import { indexText } from './index-document.js';
import { encodeJournalHeader, frameRecord } from './journal-format.js';
import { MapEncoder, PAGE, type IndexIdentity } from './map-format.js';
import { indexIdentity, sameIndex, type Snapshot, type StatePaths } from './snapshot.js';
import type { Temp, TempFiles } from './temp-files.js';

const BUFFER = 1024 * 1024;

/** Writes a file from its start, in large pieces. */
class FileWriter {
  readonly #files: FileSystem;
  readonly temp: Temp;
  #pending: Uint8Array[] = [];
  #pendingSize = 0;
  #position: number;

  constructor(files: FileSystem, temp: Temp, position = 0) {
    this.#files = files;
    this.temp = temp;
    this.#position = position;
  }

  /** True when it is time to flush. */
  add(bytes: Uint8Array): boolean {
    this.#pending.push(bytes);
    this.#pendingSize += bytes.byteLength;
    return this.#pendingSize >= BUFFER;
  }

  async flush(): Promise<void> {
    const bytes = Buffer.concat(this.#pending);
    this.#pending = [];
    this.#pendingSize = 0;
    await writeFully(this.#files, this.temp.fd, bytes, this.#position);
    this.#position += bytes.length;
  }
}

/**
 * Writes what a snapshot holds as a new `index.json`, map and journal, and puts them in place of the old ones.
 * Only under the exclusive lock. Whatever the point where it stops, the files that are there then hold everything:
 *
 * 1. `index.json` is replaced. The map of before does not mirror it any more and the journal still applies: it is
 *    merged like another tool's edit, and applying the journal once more changes nothing.
 * 2. The map is replaced. The journal is older than it, so its changes are ignored.
 * 3. The old journal gets its last record, by which those who have it open notice.
 * 4. The journal is replaced. What a newer version wrote into the old one is copied, for a newer version to apply.
 *
 * @param rewrite false: `index.json` is good as it is, only the side state is made
 * @param anew true: records of the journal that cannot be understood are left out
 * @returns false when another tool changed `index.json` meanwhile, and nothing was done
 */
export async function writeSnapshot(
  files: FileSystem,
  paths: StatePaths,
  temps: TempFiles,
  snapshot: Snapshot,
  rewrite: boolean,
  anew: boolean,
): Promise<boolean> {
  const generation = Math.max(Date.now() * 1000, snapshot.generation + 1);
  const made: Temp[] = [];
  const create = async (target?: string): Promise<Temp> => {
    const temp = await temps.create({ target });
    made.push(temp);
    return temp;
  };
  try {
    const index = new FileWriter(files, await create(dirname(paths.index)));
    const map = new FileWriter(files, await create(), PAGE);
    const journal = await create();
    const encoder = new MapEncoder(generation);
    const hash = createHash('sha256');
    const entries = function* (): Generator<Entry> {
      for (const entry of snapshot.table.all()) {
        encoder.add(entry);
        yield entry;
      }
    };
    let text = '';
    const flushText = (): boolean => {
      const bytes = Buffer.from(text);
      text = '';
      if (!rewrite) return false;
      hash.update(bytes);
      return index.add(bytes);
    };
    for (const piece of indexText(snapshot.head, entries())) {
      text += piece;
      if (text.length < BUFFER / 8) continue;
      if (flushText()) await index.flush();
      for (const page of encoder.take()) if (map.add(page)) await map.flush();
    }
    flushText();
    await index.flush();
    if (rewrite) await files.fsync(index.temp.fd);
    const identity = rewrite ? identityOf(files, index.temp) : snapshot.index;
    if (identity === undefined) return false;
    if (!rewrite) hash.update(files.readFileSync(paths.index));
    const indexDigest: Digest = `sha256:${hash.digest('hex')}`;
    const foreign = !rewrite && (snapshot.edit !== undefined || snapshot.reader.header.foreign);
    const { pages, header } = encoder.finish(snapshot.head, { index: identity, indexDigest, foreign });
    for (const page of pages) if (map.add(page)) await map.flush();
    await map.flush();
    await writeFully(files, map.temp.fd, header, 0);
    await files.fsync(map.temp.fd);
    const salt = randomInt(2 ** 32);
    const unknown = anew || snapshot.stale ? [] : (snapshot.journal?.unknown ?? []);
    const journalBytes = [
      encodeJournalHeader({ generation, salt }),
      ...unknown.map((payload) => frameRecord(payload, salt)),
    ];
    await writeFully(files, journal.fd, Buffer.concat(journalBytes), 0);
    await files.fsync(journal.fd);

    if (!sameIndex(indexIdentity(files, paths.index), snapshot.index)) return false;
    if (rewrite) {
      await files.rename(index.temp.path, paths.index);
      await syncFolder(files, dirname(paths.index));
    }
    await files.rename(map.temp.path, paths.map);
    if (snapshot.journal?.superseded === false) snapshot.journal.append([{ type: 'superseded' }]);
    await files.rename(journal.path, paths.journal);
    await syncFolder(files, dirname(paths.map));
    return true;
  } catch (error) {
    throw storageError(error, `commit ${paths.index}`);
  } finally {
    for (const temp of made) await temps.discard(temp);
  }
}

function identityOf(files: FileSystem, temp: Temp): IndexIdentity {
  const { ino, size, mtimeNs } = files.fstatSync(temp.fd);
  return { ino, size, mtimeNs };
}
