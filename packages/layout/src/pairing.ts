import { claimedDiffID, claimedDigests, layerForm, type Digest } from '@layercache/oci';
import { compressedDiffID, withDigests } from './entry.js';
import type { EntrySource, EntryTable } from './entry-table.js';

/**
 * Brings the lists of compressed counterparts in tars' entries up to date: what a tar listed before, and every
 * compressed entry whose diffID it is, without those whose own entry says otherwise.
 *
 * @param before the entries of the last commit; undefined: not comparable, look at all
 */
export function pairCounterparts(table: EntryTable, before: EntrySource | undefined): void {
  for (const diffID of before === undefined ? allTars(table) : touchedTars(table, before)) {
    const listed = new Set<Digest>();
    for (const { descriptor } of table.lookup(diffID)) {
      if (compressedDiffID(descriptor) === diffID) listed.add(descriptor.digest);
      if (descriptor.digest !== diffID) continue;
      for (const digest of claimedDigests(descriptor))
        if (!saysOtherwise(table, digest, diffID)) listed.add(digest);
    }
    const digests = [...listed].sort();
    const entries = table.of(diffID);
    const paired = entries.map((entry) =>
      layerForm(entry.descriptor.mediaType) === 'tar'
        ? { ...entry, descriptor: withDigests(entry.descriptor, digests) }
        : entry,
    );
    if (paired.some((entry, at) => entry.descriptor !== entries[at]?.descriptor))
      table.replace(diffID, paired);
  }
}

function saysOtherwise(table: EntryTable, digest: Digest, diffID: Digest): boolean {
  return table.of(digest).some(({ descriptor }) => (claimedDiffID(descriptor) ?? diffID) !== diffID);
}

function allTars(table: EntryTable): Set<Digest> {
  const tars = new Set<Digest>();
  for (const { descriptor } of table.all()) {
    if (layerForm(descriptor.mediaType) === 'tar') tars.add(descriptor.digest);
  }
  return tars;
}

function touchedTars(table: EntryTable, before: EntrySource): Set<Digest> {
  const tars = new Set<Digest>();
  for (const digest of table.changed) {
    for (const { descriptor } of [...before.of(digest), ...table.of(digest)]) {
      const diffID = claimedDiffID(descriptor);
      if (layerForm(descriptor.mediaType) !== undefined && diffID !== undefined) tars.add(diffID);
    }
  }
  return tars;
}
