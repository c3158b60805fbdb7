import { join } from 'node:path';
import {
  Digester,
  LayercacheError,
  claimedDiffID,
  digestAlgorithm,
  isLayercacheError,
  throwIfAborted,
  type Descriptor,
  type Digest,
} from '@layercache/oci';
import { describeOrphans } from './adoption.js';
import { compressedDiffID, type Entry } from './entry.js';
import { isSystemError, nodeFileSystem, type FileSystem } from './file-system.js';
import { canonicalJson, parseIndexDocument } from './index-document.js';
import { Journal } from './journal.js';
import { checkLayoutFile } from './layout-file.js';
import { openMapFile } from './map-file.js';
import { MapInvalid } from './map-format.js';
import type { OciLayout } from './oci-layout.js';
import { storedBlobs, type StoredBlob } from './stored-blobs.js';

export type VerifyStepName =
  'layout' | 'index' | 'map' | 'journal' | 'sizes' | 'digests' | 'pairs' | 'orphans' | 'temporary files';

export interface VerifyProblem {
  readonly step: VerifyStepName;
  /** What it is about, where that is one blob. */
  readonly digest?: Digest;
  /** One line. */
  readonly message: string;
  readonly repaired: boolean;
}

export interface VerifyStep {
  readonly name: VerifyStepName;
  /** How many things were looked at. */
  readonly checked: number;
  readonly problems: number;
  readonly milliseconds: number;
}

export interface VerifyReport {
  readonly steps: readonly VerifyStep[];
  readonly problems: readonly VerifyProblem[];
  /** Entries whose blob is not here. A remote may have it, so that is no problem. */
  readonly absent: number;
  /** Bytes that were hashed. */
  readonly bytes: number;
  /** Nothing is wrong, or everything that was has been repaired. */
  readonly ok: boolean;
}

export interface VerifyOptions {
  /** Drop what is broken, fetch it again where `refetch` can, adopt blobs without an entry. Default: only report. */
  readonly repair?: boolean;
  /** How many blobs are read at the same time. Default: 4. */
  readonly concurrency?: number;
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: (progress: {
    readonly step: VerifyStepName;
    readonly done: number;
    readonly total: number;
  }) => void;
  /** Decompresses a layer and hashes it. Without it, pairs are not checked. */
  readonly checkPair?: (descriptor: Descriptor, layout: OciLayout) => Promise<Digest>;
  /** Brings a blob back from where it came from. False, or an error: it cannot be had. */
  readonly refetch?: (descriptor: Descriptor) => Promise<boolean>;
  /** Blobs without an entry that are younger are left to whoever is writing them, in ms. Default: an hour. */
  readonly grace?: number;
  readonly files?: FileSystem;
}

/**
 * Checks everything in a layout, step by step.
 *
 * @throws LayercacheError `ABORTED`; `LAYOUT_INVALID` when `index.json` is broken, which nobody can repair here
 */
export async function verify(layout: OciLayout, options: VerifyOptions = {}): Promise<VerifyReport> {
  return new Verification(layout, options).run();
}

const HOUR = 3_600_000;

class Verification {
  readonly #layout: OciLayout;
  readonly #options: VerifyOptions;
  readonly #files: FileSystem;
  readonly #steps: VerifyStep[] = [];
  readonly #problems: VerifyProblem[] = [];
  /** Digests that the steps before found broken: they are not looked at twice. */
  readonly #broken = new Set<Digest>();
  readonly #absent = new Set<Digest>();
  #bytes = 0;

  constructor(layout: OciLayout, options: VerifyOptions) {
    this.#layout = layout;
    this.#options = options;
    this.#files = options.files ?? nodeFileSystem;
  }

  async run(): Promise<VerifyReport> {
    await this.#step('layout', () => this.#checkLayout());
    await this.#step('index', () => this.#checkIndex());
    await this.#step('map', () => this.#checkMap());
    await this.#step('journal', () => this.#checkJournal());
    const entries = this.#distinct();
    await this.#step('sizes', () => this.#each('sizes', entries, (entry) => this.#checkSize(entry)));
    const here = entries.filter(
      ({ descriptor: { digest } }) => !this.#broken.has(digest) && !this.#absent.has(digest),
    );
    await this.#step('digests', () => this.#each('digests', here, (entry) => this.#checkDigest(entry)));
    const pairs = here.filter(
      ({ descriptor }) => compressedDiffID(descriptor) !== undefined && !this.#broken.has(descriptor.digest),
    );
    await this.#step('pairs', () =>
      this.#options.checkPair === undefined
        ? 0
        : this.#each('pairs', pairs, (entry) => this.#checkPair(entry)),
    );
    await this.#step('orphans', () => this.#checkOrphans());
    await this.#step('temporary files', () => this.#checkTemporaryFiles());
    if (this.#options.repair === true) await this.#layout.sync();
    return {
      steps: this.#steps,
      problems: this.#problems,
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

  #report(problem: VerifyProblem): void {
    this.#problems.push(problem);
  }

  #checkLayout(): number {
    if (!checkLayoutFile(this.#files, this.#layout.dir)) {
      throw new LayercacheError(
        'LAYOUT_INVALID',
        `${this.#layout.dir} has no oci-layout any more; restore it from a copy`,
      );
    }
    return 1;
  }

  #checkIndex(): number {
    const path = join(this.#layout.dir, 'index.json');
    return parseIndexDocument(this.#files.readFileSync(path), path).manifests.length;
  }

  /** Every page of the map, and whether it says what `index.json` says. */
  async #checkMap(): Promise<number> {
    const { dir } = this.#layout;
    const path = join(dir, '.layercache', 'map');
    try {
      const map = openMapFile(this.#files, path);
      try {
        const listed = new Set<string>();
        const index = join(dir, 'index.json');
        for (const one of parseIndexDocument(this.#files.readFileSync(index), index).manifests)
          listed.add(canonicalJson(one));
        let count = 0;
        let differs = false;
        for (const { descriptor } of map.reader.all()) {
          count++;
          if (!listed.has(canonicalJson(descriptor)) && !map.reader.header.foreign) differs = true;
          if (map.reader.lookup(descriptor.digest).length === 0) differs = true;
        }
        if (!differs) return count;
        throw new MapInvalid('it does not say what index.json says');
      } finally {
        this.#files.closeSync(map.fd);
      }
    } catch (error) {
      if (isSystemError(error, 'ENOENT')) return 0;
      if (!(error instanceof MapInvalid)) throw error;
      const repaired = this.#options.repair === true;
      if (repaired) {
        this.#files.unlinkSync(path);
        await this.#layout.rebuild();
      }
      this.#report({ step: 'map', message: `the index map is of no use: ${error.message}`, repaired });
      return 1;
    }
  }

  async #checkJournal(): Promise<number> {
    const journal = Journal.open(this.#files, join(this.#layout.dir, '.layercache', 'journal'));
    if (journal === undefined) return 0;
    try {
      const changes = journal.read();
      if (journal.torn === 0) return changes.length;
      const repaired = this.#options.repair === true;
      if (repaired) await this.#layout.rebuild();
      this.#report({ step: 'journal', message: `${journal.torn} bytes of the journal are torn`, repaired });
      return changes.length;
    } finally {
      journal.close();
    }
  }

  async #checkSize({ descriptor }: Entry): Promise<void> {
    const { digest } = descriptor;
    const size = await this.#layout.blobSize(digest);
    if (size === undefined) this.#absent.add(digest);
    if (size === undefined || size === descriptor.size) return;
    if ((await this.#hash(digest)) !== digest) {
      await this.#broke('sizes', descriptor, `has ${size} bytes instead of ${descriptor.size}`);
      return;
    }
    const repaired = this.#options.repair === true;
    if (repaired) await this.#layout.put({ ...descriptor, size });
    const message = `the entry of ${digest} says ${descriptor.size} bytes, its blob has ${size}`;
    this.#report({ step: 'sizes', digest, message, repaired });
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

  async #checkPair({ descriptor, proven }: Entry): Promise<void> {
    const { checkPair, repair } = this.#options;
    const claimed = claimedDiffID(descriptor);
    if (checkPair === undefined || claimed === undefined) return;
    let found: Digest;
    try {
      found = await checkPair(descriptor, this.#layout);
    } catch (error) {
      if (!isLayercacheError(error) || error.code === 'ABORTED') throw error;
      this.#report({ step: 'pairs', digest: descriptor.digest, message: error.message, repaired: false });
      return;
    }
    if (found === claimed) {
      if (!proven && repair === true) await this.#layout.put(descriptor, { proven: true });
      return;
    }
    if (repair === true) {
      await this.#layout.put(
        { ...descriptor, annotations: { ...descriptor.annotations, 'dev.layercache.diffid': found } },
        { proven: true },
      );
    }
    this.#report({
      step: 'pairs',
      digest: descriptor.digest,
      message: `${descriptor.digest} decompresses to ${found}, not to ${claimed} as its entry says`,
      repaired: repair === true,
    });
  }

  /** Blobs that nothing names. They take space and do no harm, so they are a problem only when repaired. */
  async #checkOrphans(): Promise<number> {
    const { grace = HOUR, repair } = this.#options;
    const orphans: StoredBlob[] = [];
    let checked = 0;
    const strange = (path: string): void => {
      this.#report({
        step: 'orphans',
        message: `${path} is not a blob: its name is not a digest`,
        repaired: false,
      });
    };
    for await (const blob of storedBlobs(this.#files, this.#layout.dir, strange)) {
      throwIfAborted(this.#options.signal);
      checked++;
      const young = Date.now() - blob.usedAt.getTime() < grace;
      const named = this.#layout.lookup(blob.digest).some((entry) => entry.descriptor.digest === blob.digest);
      if (!young && !named && !this.#broken.has(blob.digest)) orphans.push(blob);
    }
    if (repair === true && orphans.length > 0)
      await this.#layout.put(await describeOrphans(this.#layout, orphans));
    for (const { digest } of orphans) {
      this.#report({
        step: 'orphans',
        digest,
        message: `blob ${digest} has no entry`,
        repaired: repair === true,
      });
    }
    return checked;
  }

  #checkTemporaryFiles(): number {
    const count = this.#layout.temporaryFiles().length;
    if (this.#options.repair === true) this.#layout.sweep();
    return count;
  }

  async #broke(step: 'sizes' | 'digests', descriptor: Descriptor, what: string): Promise<void> {
    const { digest } = descriptor;
    this.#broken.add(digest);
    let repaired = false;
    let outcome = '';
    if (this.#options.repair === true) {
      const entries = this.#layout.lookup(digest).filter((entry) => entry.descriptor.digest === digest);
      await this.#layout.remove(digest);
      repaired = true;
      outcome = '; it was dropped';
      if (await this.#refetch(descriptor)) {
        for (const entry of entries) await this.#layout.put(entry.descriptor, { proven: entry.proven });
        outcome = '; it was fetched again';
      }
    }
    this.#report({ step, digest, message: `blob ${digest} ${what}${outcome}`, repaired });
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
