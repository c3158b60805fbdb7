import { z } from 'zod';
import { digestSchema, isLayercacheError, parseDocument, refName, type Digest } from '@layercache/oci';
import type { EntrySource } from './entry-table.js';
import { isSystemError, writeFully, type FileSystem } from './file-system.js';
import type { TempFiles } from './temp-files.js';

/** Bytes of the file. What does not fit is forgotten, the oldest first. */
const MAX_SIZE = 24 * 1024;
/** How many commits are remembered. */
const MAX_COMMITS = 32;

const historySchema = z.array(
  z.object({
    /** The entry that the commit derived, which everything that was read from `index.json` then has in it. */
    derived: digestSchema,
    /** What each name that it changed meant before it; null: nothing. */
    names: z.record(z.string(), digestSchema.nullable()),
  }),
);

/**
 * What the last commits did to names, the oldest first. Another tool that read `index.json` some commits ago and writes
 * it now has changed only what differs from what it read; the entry that we derived for that commit tells when it was.
 * Side state: without it, a tool is believed to have read what was there last.
 */
export type History = z.infer<typeof historySchema>;

/** Empty when there is no file, or none that can be read. */
export function readHistory(files: FileSystem, path: string): History {
  try {
    if (files.statSync(path).size > MAX_SIZE) return [];
    return parseDocument(historySchema, files.readFileSync(path), path);
  } catch (error) {
    if (isSystemError(error) || isLayercacheError(error, 'DOCUMENT_INVALID')) return [];
    throw error;
  }
}

/**
 * What names meant when the commit that derived this entry was the last, for those that were changed since.
 *
 * @returns undefined when that commit is not remembered
 */
export function namesSince(history: History, derived: Digest): Map<string, Digest | undefined> | undefined {
  const at = history.findLastIndex((commit) => commit.derived === derived);
  if (at < 0) return undefined;
  const names = new Map<string, Digest | undefined>();
  for (const commit of history.slice(at + 1)) {
    for (const [name, before] of Object.entries(commit.names)) {
      if (!names.has(name)) names.set(name, before ?? undefined);
    }
  }
  return names;
}

/** What of the given names is something else than it was. */
export function changedNames(
  names: Iterable<string>,
  before: EntrySource,
  after: EntrySource,
): Record<string, Digest | null> {
  const changed: [string, Digest | null][] = [];
  for (const name of new Set(names)) {
    const was = before.tagged(name)?.descriptor.digest;
    if (was !== after.tagged(name)?.descriptor.digest) changed.push([name, was ?? null]);
  }
  return Object.fromEntries(changed);
}

/** Every name that one of these entries has. */
export function* namesOf(source: EntrySource, digests?: Iterable<Digest>): Generator<string> {
  if (digests === undefined) {
    for (const { descriptor } of source.all()) yield* nameOf(refName(descriptor));
    return;
  }
  for (const digest of digests) {
    for (const { descriptor } of source.of(digest)) yield* nameOf(refName(descriptor));
  }
}

function* nameOf(name: string | undefined): Generator<string> {
  if (name !== undefined) yield name;
}

/** Adds a commit. Best effort: a commit is worth more than the memory of it. */
export async function remember(
  files: FileSystem,
  path: string,
  temps: TempFiles,
  commit: History[number],
): Promise<void> {
  const history = [...readHistory(files, path), commit].slice(-MAX_COMMITS);
  let text = JSON.stringify(history);
  while (Buffer.byteLength(text) > MAX_SIZE) {
    history.shift();
    text = JSON.stringify(history);
  }
  try {
    const temp = await temps.create();
    try {
      await writeFully(files, temp.fd, Buffer.from(text), 0);
      await files.rename(temp.path, path);
    } finally {
      await temps.discard(temp);
    }
  } catch (error) {
    if (!isSystemError(error)) throw error;
  }
}
