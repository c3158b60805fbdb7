import type { Digest } from '@layercache/oci';
import type { Clock } from './clock.js';

export interface WatchOptions {
  /** What the tag names now. */
  readonly look: () => Promise<Digest | undefined>;
  readonly clock: Clock;
}

/** Milliseconds between two looks at the tag. Most writes are faster and need none. */
const INTERVAL = 100;
/** Looks that were not answered yet. */
const MAX_LOOKS = 8;

/**
 * What a tag named while a write of it was under way: the write may have put an end to that, and only this writer can
 * know.
 *
 * @returns the digests that were seen, once the write has ended and every look was answered
 */
export async function watchedTag(write: Promise<void>, { look, clock }: WatchOptions): Promise<Digest[]> {
  const seen = new Set<Digest>();
  const looks = new Set<Promise<void>>();
  const end = new AbortController();
  const watching = watch();
  try {
    await write;
  } finally {
    end.abort();
    await watching;
  }
  await Promise.all(looks);
  return [...seen];

  async function watch(): Promise<void> {
    while (await passes(clock, end.signal)) {
      if (looks.size >= MAX_LOOKS) continue;
      // A look that fails tells nothing; the write says whether there is a registry.
      const one = look()
        .then((digest) => {
          if (digest !== undefined) seen.add(digest);
        })
        .catch(() => undefined)
        .finally(() => looks.delete(one));
      looks.add(one);
    }
  }
}

async function passes(clock: Clock, signal: AbortSignal): Promise<boolean> {
  try {
    await clock.sleep(INTERVAL, signal);
    return true;
  } catch {
    return false;
  }
}
