import {
  Digester,
  claimedDiffID,
  digestAlgorithm,
  isLayercacheError,
  layerForm,
  throwIfAborted,
  type Descriptor,
  type Digest,
} from '@layercache/oci';
import { compressedDiffID, type Entry } from './entry.js';
import { nodeFileSystem, type FileSystem } from './file-system.js';
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
  return new Verification(layout, options).run();
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
    await this.#step('missing', () => this.#each('missing', gone, (entry) => this.#checkMissing(entry)));
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
        hash: (digest) => this.#hash(digest),
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

  async #checkSize({ descriptor }: Entry): Promise<void> {
    const { digest } = descriptor;
    const size = await this.#layout.blobSize(digest);
    if (size === undefined) this.#absent.add(digest);
    if (size === undefined || size === descriptor.size) return;
    if ((await this.#hash(digest)) !== digest) {
      await this.#broke('sizes', descriptor, `has ${size} bytes instead of ${descriptor.size}`);
      return;
    }
    if (this.#repair) await this.#layout.put({ ...descriptor, size });
    const message = `the entry of ${digest} says ${descriptor.size} bytes, its blob has ${size}`;
    this.#report({ step: 'sizes', kind: 'invalid', digest, message, repaired: this.#repair });
  }

  async #checkDigest({ descriptor }: Entry): Promise<void> {
    const { digest } = descriptor;
    try {
      const found = await this.#hash(digest);
      if (found !== digest) await this.#broke('digests', descriptor, `hashes to ${found}`);
    } catch (error) {
      if (isLayercacheError(error, 'NOT_FOUND')) this.#absent.add(digest);
      else if (isLayercacheError(error, 'STORAGE')) {
        await this.#broke('digests', descriptor, `cannot be read: ${error.message}`);
      } else throw error;
    }
  }

  async #hash(digest: Digest): Promise<Digest> {
    const digester = new Digester(digestAlgorithm(digest));
    for await (const chunk of this.#layout.read(digest, {
      verify: false,
      touch: false,
      signal: this.#options.signal,
    })) {
      digester.update(chunk as Buffer);
    }
    this.#bytes += digester.size;
    return digester.digest();
  }

  /** A tar whose compressed form is here is derived when it is wanted. */
  async #checkMissing({ descriptor }: Entry): Promise<void> {
    const { digest, mediaType } = descriptor;
    if ((await this.#options.isElsewhere?.(descriptor)) ?? true) return;
    const related = layerForm(mediaType) === 'tar' ? this.#layout.lookup(digest) : [];
    for (const other of related) {
      const { digest: source, size } = other.descriptor;
      if (source !== digest && (await this.#layout.has(source, size))) return;
    }
    if (this.#repair) await this.#layout.remove(digest);
    const outcome = this.#repair ? '; its entry was dropped' : '';
    const message = `blob ${digest} is not here, and no place is known that has it${outcome}`;
    this.#report({ step: 'missing', kind: 'missing', digest, message, repaired: this.#repair });
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
      this.#report({ step: 'pairs', kind: 'invalid', digest, message: error.message, repaired: false });
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

  async #broke(step: 'sizes' | 'digests', descriptor: Descriptor, what: string): Promise<void> {
    const { digest } = descriptor;
    this.#broken.add(digest);
    let repaired = false;
    let outcome = '';
    if (this.#repair) {
      const entries = this.#layout.lookup(digest).filter((entry) => entry.descriptor.digest === digest);
      await this.#layout.remove(digest);
      repaired = true;
      outcome = '; it was dropped';
      if (await this.#refetch(descriptor)) {
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
        await check(entry);
        this.#options.onProgress?.({ step, done: ++done, total: entries.length });
      }
    };
    await Promise.all(Array.from({ length: this.#options.concurrency ?? 4 }, worker));
    return entries.length;
  }
}
