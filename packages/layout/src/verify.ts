import {
  claimedDiffID,
  isLayercacheError,
  layerForm,
  throwIfAborted,
  type Descriptor,
  type Digest,
} from '@layercache/oci';
import type { HashedBlob } from './blobs.js';
import { compressedDiffID, type Entry } from './entry.js';
import { nodeFileSystem, storageError, type FileSystem } from './file-system.js';
import type { EvictedBlob } from './layout-state.js';
import type { OciLayout } from './oci-layout.js';
import { checkOrphans } from './verify-orphans.js';
import type {
  VerifyOptions,
  VerifyProblem,
  VerifyProblemKind,
  VerifyReport,
  VerifyStep,
  VerifyStepName,
} from './verify-report.js';
import { checkIndex, checkJournal, checkLayout, checkMap } from './verify-side-state.js';

/**
 * Checks everything in a layout, step by step.
 *
 * @throws LayercacheError `ABORTED`; `LAYOUT_INVALID` when `index.json` is broken, which nobody can repair here
 */
export async function verify(layout: OciLayout, options: VerifyOptions = {}): Promise<VerifyReport> {
  try {
    return await new Verification(layout, options).run();
  } catch (error) {
    throw storageError(error, `verify ${layout.dir}`);
  }
}

class Verification {
  readonly #layout: OciLayout;
  readonly #options: VerifyOptions;
  readonly #files: FileSystem;
  readonly #steps: VerifyStep[] = [];
  readonly #problems: VerifyProblem[] = [];
  /** Digests that the steps before found broken: they are not looked at twice. */
  readonly #broken = new Set<Digest>();
  readonly #absent = new Set<Digest>();
  readonly #repair: boolean;
  #bytes = 0;
  #derivedLost = false;

  constructor(layout: OciLayout, options: VerifyOptions) {
    this.#layout = layout;
    this.#options = options;
    this.#repair = options.repair ?? false;
    this.#files = options.files ?? nodeFileSystem;
  }

  async run(): Promise<VerifyReport> {
    const side = { layout: this.#layout, files: this.#files, repair: this.#repair, report: this.#report };
    await this.#step('layout', () => checkLayout(side));
    await this.#step('index', () => checkIndex(side));
    await this.#step('map', () => checkMap(side));
    await this.#step('journal', () => checkJournal(side));
    const entries = this.#distinct();
    await this.#step('sizes', () => this.#each('sizes', entries, (entry) => this.#checkSize(entry)));
    const here = entries.filter(
      ({ descriptor: { digest } }) => !this.#broken.has(digest) && !this.#absent.has(digest),
    );
    await this.#step('digests', () => this.#each('digests', here, (entry) => this.#checkDigest(entry)));
    const gone = entries.filter(({ descriptor }) => this.#absent.has(descriptor.digest));
    await this.#step('missing', () => this.#checkMissing(gone));
    const pairs = here.filter(
      ({ descriptor }) => compressedDiffID(descriptor) !== undefined && !this.#broken.has(descriptor.digest),
    );
    await this.#step('pairs', () =>
      this.#options.checkPair === undefined
        ? 0
        : this.#each('pairs', pairs, (entry) => this.#checkPair(entry)),
    );
    await this.#step('orphans', async () => {
      const { checked, derivedLost } = await checkOrphans({
        ...side,
        options: this.#options,
        known: this.#broken,
        hash: (digest, use) => this.#hash(digest, use),
      });
      this.#derivedLost = derivedLost;
      return checked;
    });
    await this.#step('temporary files', () => this.#checkTemporaryFiles());
    if (this.#repair) await (this.#derivedLost ? this.#layout.rebuild() : this.#layout.sync());
    const count = (kind: VerifyProblemKind): number =>
      this.#problems.filter((problem) => problem.kind === kind).length;
    return {
      steps: this.#steps,
      problems: this.#problems,
      found: {
        corrupted: count('corrupted'),
        missing: count('missing'),
        invalid: count('invalid'),
        orphaned: count('orphaned'),
        unreadable: count('unreadable'),
      },
      absent: this.#absent.size,
      bytes: this.#bytes,
      ok: this.#problems.every((problem) => problem.repaired),
    };
  }

  async #step(name: VerifyStepName, run: () => number | Promise<number>): Promise<void> {
    throwIfAborted(this.#options.signal);
    const start = performance.now();
    const before = this.#problems.length;
    const checked = await run();
    this.#steps.push({
      name,
      checked,
      problems: this.#problems.length - before,
      milliseconds: Math.round(performance.now() - start),
    });
  }

  readonly #report = (problem: VerifyProblem): void => {
    this.#problems.push(problem);
  };

  async #checkSize({ descriptor: { digest } }: Entry): Promise<void> {
    const size = await this.#layout.blobSize(digest);
    if (size === undefined) {
      this.#absent.add(digest);
      return;
    }
    const wrong = this.#entriesOf(digest).find(({ descriptor }) => descriptor.size !== size);
    if (wrong === undefined) return;
    const { descriptor } = wrong;
    await this.#hash(digest, async (hashed) => {
      if (hashed.found !== digest) {
        await this.#broke('sizes', descriptor, hashed, `has ${size} bytes instead of ${descriptor.size}`);
        return;
      }
      // All entries of the digest take on the size.
      if (this.#repair) await this.#layout.put({ ...descriptor, size: hashed.size });
      const message = `the entry of ${digest} says ${descriptor.size} bytes, its blob has ${size}`;
      this.#report({ step: 'sizes', kind: 'invalid', digest, message, repaired: this.#repair });
    });
  }

  async #checkDigest({ descriptor }: Entry): Promise<void> {
    const { digest } = descriptor;
    await this.#hash(digest, async (hashed) => {
      if (hashed.found !== digest) {
        await this.#broke('digests', descriptor, hashed, `hashes to ${hashed.found}`);
      }
    });
  }

  #hash<T>(digest: Digest, use: (hashed: HashedBlob) => Promise<T>): Promise<T> {
    return this.#layout.hash(digest, { signal: this.#options.signal }, (hashed) => {
      this.#bytes += hashed.size;
      return use(hashed);
    });
  }

  #entriesOf(digest: Digest): Entry[] {
    return this.#layout.lookup(digest).filter(({ descriptor }) => descriptor.digest === digest);
  }

  /** Entries whose blob cannot be had go together, as each removal writes `index.json` anew. */
  async #checkMissing(absent: readonly Entry[]): Promise<number> {
    const missing: EvictedBlob[] = [];
    const count = await this.#each('missing', absent, async ({ descriptor }) => {
      if (!(await this.#canBeHad(descriptor))) missing.push({ digest: descriptor.digest, usedAt: undefined });
    });
    // Those that have come in the meantime stay.
    const dropped = new Set(this.#repair && missing.length > 0 ? await this.#layout.evict(missing) : []);
    for (const { digest } of missing) {
      const outcome = dropped.has(digest) ? '; its entry was dropped' : '';
      const message = `blob ${digest} is not here, and no place is known that has it${outcome}`;
      this.#report({ step: 'missing', kind: 'missing', digest, message, repaired: dropped.has(digest) });
    }
    return count;
  }

  /** A tar whose compressed form is here is derived when it is wanted. */
  async #canBeHad(descriptor: Descriptor): Promise<boolean> {
    const { digest, mediaType } = descriptor;
    if ((await this.#options.isElsewhere?.(descriptor)) ?? true) return true;
    const related = layerForm(mediaType) === 'tar' ? this.#layout.lookup(digest) : [];
    for (const other of related) {
      const { digest: source, size } = other.descriptor;
      if (source !== digest && (await this.#layout.has(source, size))) return true;
    }
    return false;
  }

  async #checkPair({ descriptor, proven }: Entry): Promise<void> {
    const { checkPair } = this.#options;
    const claimed = claimedDiffID(descriptor);
    if (checkPair === undefined || claimed === undefined) return;
    let found: Digest;
    try {
      found = await checkPair(descriptor, this.#layout);
    } catch (error) {
      if (!isLayercacheError(error) || error.code === 'ABORTED') throw error;
      const { digest } = descriptor;
      const kind = error.code === 'STORAGE' ? 'unreadable' : 'invalid';
      this.#report({ step: 'pairs', kind, digest, message: error.message, repaired: false });
      return;
    }
    if (found === claimed) {
      if (!proven && this.#repair) await this.#layout.put(descriptor, { proven: true });
      return;
    }
    if (this.#repair) {
      await this.#layout.put(
        { ...descriptor, annotations: { ...descriptor.annotations, 'dev.layercache.diffid': found } },
        { proven: true },
      );
    }
    this.#report({
      step: 'pairs',
      kind: 'invalid',
      digest: descriptor.digest,
      message: `${descriptor.digest} decompresses to ${found}, not to ${claimed} as its entry says`,
      repaired: this.#repair,
    });
  }

  #checkTemporaryFiles(): number {
    const count = this.#layout.temporaryFiles().length;
    if (this.#repair) this.#layout.sweep();
    return count;
  }

  async #broke(
    step: 'sizes' | 'digests',
    descriptor: Descriptor,
    hashed: HashedBlob,
    what: string,
  ): Promise<void> {
    const { digest } = descriptor;
    this.#broken.add(digest);
    let repaired = false;
    let outcome = '';
    if (this.#repair) {
      const entries = this.#entriesOf(digest);
      repaired = await this.#layout.dropCorrupt(hashed);
      outcome = repaired ? '; it was dropped' : '; it was left, because it is being replaced';
      if (repaired && (await this.#refetch(descriptor))) {
        for (const entry of entries) await this.#layout.put(entry.descriptor, { proven: entry.proven });
        outcome = '; it was fetched again';
      }
    }
    this.#report({ step, kind: 'corrupted', digest, message: `blob ${digest} ${what}${outcome}`, repaired });
  }

  async #refetch(descriptor: Descriptor): Promise<boolean> {
    try {
      const fetched = await this.#options.refetch?.(descriptor);
      return fetched === true && (await this.#layout.has(descriptor.digest, descriptor.size));
    } catch (error) {
      if (isLayercacheError(error, 'ABORTED')) throw error;
      return false;
    }
  }

  /** What cannot be read now may be good: it is reported, and stays as it is. */
  async #reportingUnreadable(
    step: VerifyStepName,
    entry: Entry,
    check: (entry: Entry) => Promise<void>,
  ): Promise<void> {
    const { digest } = entry.descriptor;
    try {
      await check(entry);
    } catch (error) {
      if (isLayercacheError(error, 'NOT_FOUND')) {
        this.#absent.add(digest);
        return;
      }
      if (!isLayercacheError(error, 'STORAGE')) throw error;
      this.#broken.add(digest);
      const message = `blob ${digest} is neither right nor wrong: ${error.message}`;
      this.#report({ step, kind: 'unreadable', digest, message, repaired: false });
    }
  }

  /** One entry a digest. */
  #distinct(): Entry[] {
    const found = new Map<Digest, Entry>();
    for (const entry of this.#layout.entries()) found.set(entry.descriptor.digest, entry);
    return [...found.values()];
  }

  async #each(
    step: VerifyStepName,
    entries: readonly Entry[],
    check: (entry: Entry) => Promise<void>,
  ): Promise<number> {
    let next = 0;
    let done = 0;
    const worker = async (): Promise<void> => {
      for (let entry = entries[next++]; entry !== undefined; entry = entries[next++]) {
        throwIfAborted(this.#options.signal);
        await this.#reportingUnreadable(step, entry, check);
        this.#options.onProgress?.({ step, done: ++done, total: entries.length });
      }
    };
    await Promise.all(Array.from({ length: this.#options.concurrency ?? 4 }, worker));
    return entries.length;
  }
}
