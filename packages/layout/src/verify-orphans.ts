import { isLayercacheError, throwIfAborted, type Digest } from '@layercache/oci';
import { describeOrphans } from './adoption.js';
import { storedBlobs, type StoredBlob } from './stored-blobs.js';
import type { HashedBlob } from './blobs.js';
import type { VerifyOptions } from './verify-report.js';
import type { SideStateCheck } from './verify-side-state.js';

export interface OrphanCheck extends SideStateCheck {
  readonly options: VerifyOptions;
  /** Blobs that were found broken and told of before. */
  readonly known: ReadonlySet<Digest>;
  readonly hash: <T>(digest: Digest, use: (hashed: HashedBlob) => Promise<T>) => Promise<T>;
}

const HOUR = 3_600_000;

/**
 * Blobs without an entry: what the layout's owner derives, and what nobody wrote down. Each is hashed.
 *
 * @returns how many blobs there are, and whether something was dropped that has to be derived anew
 */
export async function checkOrphans(
  check: OrphanCheck,
): Promise<{ readonly checked: number; readonly derivedLost: boolean }> {
  const { layout, files, repair, report, options } = check;
  const { grace = HOUR, signal } = options;
  const derived = (await options.derived?.(layout)) ?? new Set<Digest>();
  const orphans: StoredBlob[] = [];
  let checked = 0;
  let derivedLost = false;
  const strange = (path: string): void => {
    const message = `${path} is not a blob: its name is not a digest`;
    report({ step: 'orphans', kind: 'invalid', message, repaired: false });
  };
  for await (const blob of storedBlobs(files, layout.dir, strange)) {
    const { digest, usedAt } = blob;
    throwIfAborted(signal);
    checked++;
    const isDerived = derived.has(digest);
    // A repair adopts what nobody is writing, and that harms no one, however young it is.
    const young = Date.now() - usedAt.getTime() < grace && !(repair && !(await layout.isPinned(digest)));
    const named = layout.lookup(digest).some((entry) => entry.descriptor.digest === digest);
    if (named || check.known.has(digest) || (young && !isDerived)) continue;
    const state = await checkBytes(check, digest, isDerived);
    if (state === 'whole' && !isDerived) orphans.push(blob);
    if (state === 'dropped') derivedLost ||= isDerived;
  }
  if (repair && orphans.length > 0) await layout.adopt(await describeOrphans(layout, orphans));
  for (const { digest } of orphans) {
    const message = `blob ${digest} has no entry`;
    report({ step: 'orphans', kind: 'orphaned', digest, message, repaired: repair });
  }
  return { checked, derivedLost };
}

/** A blob that is gone meanwhile is nobody's problem. One that cannot be read now is reported, and stays. */
async function checkBytes(
  { layout, repair, report, hash }: OrphanCheck,
  digest: Digest,
  derived: boolean,
): Promise<'whole' | 'unknown' | 'corrupt' | 'dropped'> {
  try {
    return await hash(digest, async (hashed) => {
      if (hashed.found === digest) return 'whole';
      const dropped = repair && (await layout.dropCorrupt(hashed));
      const outcome = dropped ? `; it was ${derived ? 'made again' : 'dropped'}` : '';
      const message = `blob ${digest} hashes to ${hashed.found}${outcome}`;
      report({ step: 'orphans', kind: 'corrupted', digest, message, repaired: dropped });
      return dropped ? 'dropped' : 'corrupt';
    });
  } catch (error) {
    if (isLayercacheError(error, 'NOT_FOUND')) return 'unknown';
    if (!isLayercacheError(error, 'STORAGE')) throw error;
    const message = `blob ${digest} is neither right nor wrong: ${error.message}`;
    report({ step: 'orphans', kind: 'unreadable', digest, message, repaired: false });
    return 'unknown';
  }
}
