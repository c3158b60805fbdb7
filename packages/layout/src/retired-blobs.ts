import { z } from 'zod';
import { digestSchema, isLayercacheError, parseDocument, type Digest } from '@layercache/oci';
import { isSystemError, writeFully, type FileSystem } from './file-system.js';
import type { TempFiles } from './temp-files.js';

/** How many blobs are remembered. */
const MAX_COUNT = 128;
/** Bytes of the file that remembers them. */
const MAX_FILE_SIZE = 32 * 1024;
/** Bytes of all of them. */
const MAX_BYTES = 64 * 1024 * 1024;
/** The part of a limit that they may take. */
const LIMIT_SHARE = 16;
/** How long a blob is kept, in ms: a reader that has just read a derived document reads its parts soon after. */
export const RETIREMENT = 600_000;

const retiredSchema = z.array(z.object({ digest: digestSchema, at: z.number() }));

/** A blob that a commit has superseded, and when, in ms since 1970. */
type Retired = z.infer<typeof retiredSchema>[number];

export interface RetiredOptions {
  readonly files: FileSystem;
  readonly temps: TempFiles;
  /** Of the file that remembers them. */
  readonly path: string;
  /** Bytes that the layout may take. */
  readonly maxSize: number | undefined;
  readonly sizeOf: (digest: Digest) => number | undefined;
  readonly unlink: (digest: Digest) => Promise<boolean>;
}

/**
 * Derived blobs that commits have superseded. They stay for a while, because another tool may be reading what
 * `index.json` listed a moment ago, and go when space is needed. Everything here happens under the exclusive lock of the
 * layout, but for {@link list}. Losing the file loses nothing: the blobs are then unreferenced ones.
 */
export class RetiredBlobs {
  readonly #options: RetiredOptions;

  constructor(options: RetiredOptions) {
    this.#options = options;
  }

  /** The oldest first. */
  list(): readonly Retired[] {
    const { files, path } = this.#options;
    try {
      if (files.statSync(path).size > MAX_FILE_SIZE) return [];
      return parseDocument(retiredSchema, files.readFileSync(path), path);
    } catch (error) {
      if (isSystemError(error) || isLayercacheError(error, 'DOCUMENT_INVALID')) return [];
      throw error;
    }
  }

  /**
   * Takes up what a commit has superseded, and unlinks those that have been kept for long enough, or are too many.
   *
   * @param inUse what the commit has derived, and may have been superseded before
   */
  async retire(superseded: readonly Digest[], inUse: ReadonlySet<Digest>): Promise<void> {
    const before = this.list();
    if (superseded.length === 0 && before.length === 0) return;
    const now = Date.now();
    const fresh = superseded.map((digest) => ({ digest, at: now }));
    const latest = new Map([...before, ...fresh].map((each) => [each.digest, each] as const));
    const all = [...latest.values()].filter(({ digest }) => !inUse.has(digest)).sort((a, b) => a.at - b.at);
    const kept = this.#bounded(all.filter(({ at }) => now - at < RETIREMENT));
    if (!(await this.#write(kept))) kept.length = 0;
    const keptDigests = new Set(kept.map(({ digest }) => digest));
    for (const { digest } of all) if (!keptDigests.has(digest)) await this.#options.unlink(digest);
  }

  /** Unlinks those that were superseded so long ago. @param age ms */
  async drop(age: number): Promise<boolean> {
    const all = this.list();
    const old = all.filter(({ at }) => Date.now() - at >= age);
    if (old.length === 0) return false;
    let dropped = false;
    for (const { digest } of old) dropped = (await this.#options.unlink(digest)) || dropped;
    const rest = all.filter((each) => !old.includes(each));
    await this.#write(rest);
    return dropped;
  }

  #bounded(retired: readonly Retired[]): Retired[] {
    const { maxSize, sizeOf } = this.#options;
    const maxBytes = maxSize === undefined ? MAX_BYTES : Math.min(MAX_BYTES, maxSize / LIMIT_SHARE);
    const kept: Retired[] = [];
    let bytes = 0;
    for (const each of [...retired].reverse()) {
      bytes += sizeOf(each.digest) ?? 0;
      if (kept.length >= MAX_COUNT || bytes > maxBytes) break;
      kept.unshift(each);
    }
    return kept;
  }

  /** False when there is no space for it. */
  async #write(retired: readonly Retired[]): Promise<boolean> {
    const { files, temps, path } = this.#options;
    try {
      if (retired.length === 0) {
        await files.unlink(path);
        return true;
      }
      const temp = await temps.create();
      try {
        await writeFully(files, temp.fd, Buffer.from(JSON.stringify(retired)), 0);
        await files.rename(temp.path, path);
      } finally {
        await temps.discard(temp);
      }
      return true;
    } catch (error) {
      if (!isSystemError(error)) throw error;
      return isSystemError(error, 'ENOENT');
    }
  }
}
