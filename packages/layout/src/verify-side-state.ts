import { join } from 'node:path';
import { LayercacheError, digestOf } from '@layercache/oci';
import { isSystemError, type FileSystem } from './file-system.js';
import { canonicalJson, parseIndexDocument } from './index-document.js';
import { Journal } from './journal.js';
import { checkLayoutFile } from './layout-file.js';
import { openMapFile } from './map-file.js';
import { MapInvalid } from './map-format.js';
import type { OciLayout } from './oci-layout.js';
import { indexIdentity, sameIndex } from './snapshot.js';
import type { VerifyProblem } from './verify-report.js';

/** What the checks of the files that are no blobs need. Each returns how many things it looked at. */
export interface SideStateCheck {
  readonly layout: OciLayout;
  readonly files: FileSystem;
  readonly repair: boolean;
  readonly report: (problem: VerifyProblem) => void;
}

export function checkLayout({ layout, files, report }: SideStateCheck): number {
  for (const message of layout.restored) report({ step: 'layout', kind: 'invalid', message, repaired: true });
  if (checkLayoutFile(files, layout.dir)) return 1;
  throw new LayercacheError(
    'LAYOUT_INVALID',
    `${layout.dir} has no oci-layout any more; restore it from a copy`,
  );
}

export async function checkIndex({ layout, files, repair, report }: SideStateCheck): Promise<number> {
  const path = join(layout.dir, 'index.json');
  const { manifests, left } = parseIndexDocument(files.readFileSync(path), path);
  if (left > 0) {
    if (repair) await layout.rebuild();
    const outcome = repair ? '; they were dropped' : '; drop them with --repair';
    const message = `entries of index.json have a size that no blob can have: ${left}${outcome}`;
    report({ step: 'index', kind: 'invalid', message, repaired: repair });
  }
  return manifests.length;
}

/** Every page of the map, and whether it says what `index.json` says. */
export async function checkMap({ layout, files, repair, report }: SideStateCheck): Promise<number> {
  const path = join(layout.dir, '.layercache', 'map');
  try {
    return compareMap(files, path, join(layout.dir, 'index.json'));
  } catch (error) {
    if (isSystemError(error, 'ENOENT')) return 0;
    if (!(error instanceof MapInvalid)) throw error;
    if (repair && error instanceof IndexEdited) {
      await layout.rebuild({ edited: true });
    } else if (repair) {
      files.unlinkSync(path);
      await layout.rebuild();
    }
    report({
      step: 'map',
      kind: 'invalid',
      message: error instanceof IndexEdited ? error.message : `the index map is of no use: ${error.message}`,
      repaired: repair,
    });
    return 1;
  }
}

class IndexEdited extends MapInvalid {}

/** @throws MapInvalid */
function compareMap(files: FileSystem, path: string, index: string): number {
  const { fd, reader } = openMapFile(files, path);
  try {
    // Another tool has just changed index.json: then the map is merged with it at the next look.
    const isStale = !sameIndex(reader.header.index, indexIdentity(files, index));
    const bytes = files.readFileSync(index);
    if (!isStale && digestOf(bytes) !== reader.header.indexDigest) {
      throw new IndexEdited(
        'index.json was changed since the index map was made, although its size and time are the same',
      );
    }
    const listed = new Set<string>();
    for (const one of parseIndexDocument(bytes, index).manifests) listed.add(canonicalJson(one));
    let count = 0;
    let differs = false;
    for (const { descriptor } of reader.all()) {
      count++;
      if (!isStale && !reader.header.foreign && !listed.has(canonicalJson(descriptor))) differs = true;
      if (reader.lookup(descriptor.digest).length === 0) differs = true;
    }
    if (!differs) return count;
    throw new MapInvalid('it does not say what index.json says');
  } finally {
    files.closeSync(fd);
  }
}

export async function checkJournal({ layout, files, repair, report }: SideStateCheck): Promise<number> {
  const journal = Journal.open(files, join(layout.dir, '.layercache', 'journal'));
  if (journal === undefined) return 0;
  try {
    const changes = journal.read();
    if (journal.torn === 0 && journal.unknown.length === 0) return changes.length;
    if (repair) await layout.rebuild();
    if (journal.torn > 0) {
      const message = `${journal.torn} bytes of the journal are torn`;
      report({ step: 'journal', kind: 'invalid', message, repaired: repair });
    }
    if (journal.unknown.length > 0) {
      const outcome = repair ? '; they were dropped' : '; use that version, or drop them with --repair';
      const message = `records of the journal are of a newer version: ${journal.unknown.length}${outcome}`;
      report({ step: 'journal', kind: 'invalid', message, repaired: repair });
    }
    return changes.length;
  } finally {
    journal.close();
  }
}
