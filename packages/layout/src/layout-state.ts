import { join } from 'node:path';
import {
  errorFields,
  LayercacheError,
  isLayercacheError,
  refName,
  type Descriptor,
  type Digest,
  type Logger,
} from '@layercache/oci';
import type { Claim } from './claim.js';
import { writeSnapshot } from './commit.js';
import { compareEntries, type Entry } from './entry.js';
import type { Derived, LayoutExtension } from './extension.js';
import { isSystemError, type FileSystem } from './file-system.js';
import type { Change } from './journal-format.js';
import { LayoutLock } from './lock.js';
import { MapInvalid } from './map-format.js';
import { pairCounterparts } from './pairing.js';
import { journalBound, spaceForChanges, spaceForCommit } from './space/side-space.js';
import type { Space } from './space/space.js';
import { openSnapshot, type Snapshot, type StatePaths } from './snapshot.js';
import { RetiredBlobs } from './retired-blobs.js';
import type { TempFiles } from './temp-files.js';

/** How often a handle looks whether another tool replaced `index.json`, in ms. */
const CHECK_INTERVAL = 50;
/**
 * What is found may be as old as this, in ms, so that of many lookups in a row not each asks the system whether the
 * journal grew. No process can have heard of a put in less time than this; what is not found is always asked for.
 */
const RECENT = 0.005;
/** A commit costs as much as the layout is large, so the journal may grow to that size first. */
const MIN_JOURNAL = 8 * 1024 * 1024;
/** Other tools see what is in the journal after this many ms, or when the handle is closed. */
const MAX_AGE = 300_000;

export interface StateOptions {
  readonly files: FileSystem;
  readonly dir: string;
  readonly blobPath: (digest: Digest) => string;
  readonly temps: TempFiles;
  readonly logger: Logger;
  readonly fsync: boolean;
  /** ms */
  readonly lockTimeout: number;
  readonly extension: LayoutExtension | undefined;
  /** What an extension may use. */
  readonly readBlob: (digest: Digest) => Promise<Uint8Array>;
  readonly writeBlob: (bytes: Uint8Array) => Promise<Digest>;
  readonly hasBlob: (digest: Digest, size?: number) => Promise<boolean>;
  readonly unlinkBlob: (digest: Digest) => Promise<boolean>;
  readonly claimBlob: (digest: Digest) => Claim | undefined;
  /** Bytes; undefined when the blob is not here. */
  readonly sizeOfBlob: (digest: Digest) => number | undefined;
  /** Where room is limited. */
  readonly space: Space | undefined;
}

/** A blob that may go if it was not used after this time; undefined: if it is not here. */
export interface EvictedBlob {
  readonly digest: Digest;
  readonly usedAt: Date | undefined;
}

/** The entries of a layout, shared with every other handle and process that has it open. */
export class LayoutState {
  readonly #options: StateOptions;
  readonly #files: FileSystem;
  readonly #paths: StatePaths;
  readonly #lock: LayoutLock;
  readonly #retired: RetiredBlobs;
  #snapshot: Snapshot;
  #refreshedAt = -Infinity;
  #nextCheck = 0;
  /** The inode of a map that cannot be read. */
  #damagedMap: bigint | undefined;
  /** When this handle first appended something that is not committed, in ms; 0: nothing. */
  #wroteAt = 0;
  #background: Promise<void> | undefined;
  /** The exclusive lock is held by this handle. */
  busy = false;

  /** Until the journal is old enough to be committed. */
  #timer: NodeJS.Timeout | undefined;

  constructor(options: StateOptions) {
    const side = join(options.dir, '.layercache');
    this.#options = options;
    this.#files = options.files;
    this.#paths = {
      index: join(options.dir, 'index.json'),
      map: join(side, 'map'),
      journal: join(side, 'journal'),
      blob: options.blobPath,
    };
    this.#lock = new LayoutLock(options.files, join(side, 'lock'), options.lockTimeout);
    this.#retired = new RetiredBlobs({
      files: options.files,
      temps: options.temps,
      path: join(side, 'retired'),
      maxSize: options.space?.maxSize,
      sizeOf: options.sizeOfBlob,
      unlink: async (digest) =>
        this.#snapshot.table.of(digest).length === 0 && (await options.unlinkBlob(digest)),
    });
    this.#snapshot = openSnapshot(this.#files, this.#paths);
    options.space?.expect(this.#spaceForCommit());
  }

  /** Makes the side state, and takes up what other tools did. Without the right to write, in memory. */
  async start(): Promise<void> {
    if (this.#snapshot.isCurrent()) return;
    try {
      await this.#withRoomFor([], () => this.#exclusive('opening', () => this.#commit()));
    } catch (error) {
      if (!cannotWrite(error) && !isLayercacheError(error, 'CACHE_FULL')) throw error;
      this.#options.logger.debug({ message: 'side state kept in memory', ...errorFields(error) });
      await this.#adopt(this.#snapshot);
    }
  }

  lookup(key: Digest): readonly Entry[] {
    const found = this.#look(({ table }) => table.lookup(key), RECENT);
    if (found.length > 0 || !this.#refresh()) return found;
    return this.#look(({ table }) => table.lookup(key));
  }

  tagged(name: string): Entry | undefined {
    return this.#look(({ table }) => table.tagged(name));
  }

  /** In canonical order, as they are when the iteration starts. */
  *all(): Generator<Entry> {
    let last: Entry | undefined;
    for (;;) {
      const snapshot = this.#look((current) => current);
      snapshot.retain();
      try {
        for (const entry of snapshot.table.all()) {
          if (last !== undefined && compareEntries(entry, last) <= 0) continue;
          last = entry;
          yield entry;
        }
        return;
      } catch (error) {
        this.#leaveMap(error);
      } finally {
        snapshot.release();
      }
    }
  }

  /** Appends changes to the journal. Resolved means that every process sees them. */
  async append(changes: readonly Change[]): Promise<void> {
    await this.#withRoomFor(changes, async () => {
      const max = this.#options.space?.maxEntries ?? Infinity;
      if (max < Infinity) await this.#appendCounted(changes, max);
      else await this.#appendShared(changes);
    });
    if (this.#wroteAt !== 0) this.#commitWhenDue();
  }

  async #appendShared(changes: readonly Change[]): Promise<void> {
    while (!(await this.#lock.shared(() => this.#tryAppend(changes)))) {
      await this.#exclusive('commit', () => this.#commit());
    }
  }

  /** Alone, so that what is counted is what is there. */
  async #appendCounted(changes: readonly Change[], max: number): Promise<void> {
    for (;;) {
      const over = await this.#exclusive('put', async () => {
        while (!this.#settle()) await this.#commit();
        const over = this.#countWith(changes) - max;
        if (over > 0) return over;
        while (!(await this.#tryAppend(changes))) await this.#commit();
        return 0;
      });
      if (over <= 0) return;
      if ((await this.#options.space?.makeRoom({ bytes: 0, entries: over, derived: false })) === 'freed')
        continue;
      throw new LayercacheError(
        'CACHE_FULL',
        `${over} entries more than the ${max} that ${this.#options.dir} may have, whatever is evicted; raise the limit, unpin or remove something`,
      );
    }
  }

  #countWith(changes: readonly Change[]): number {
    const { table, reader } = this.#snapshot;
    const derived = (this.#options.extension?.names ?? []).filter((name) => table.tagged(name) !== undefined);
    const added = new Set<string>();
    for (const change of changes) {
      if (change.type !== 'put') continue;
      const { digest } = change.entry.descriptor;
      const name = refName(change.entry.descriptor);
      if (table.of(digest).every((entry) => refName(entry.descriptor) !== name))
        added.add(`${digest} ${name ?? ''}`);
    }
    return reader.header.recordCount + table.growth + added.size - derived.length;
  }

  #withRoomFor<T>(changes: readonly Change[], run: () => Promise<T>): Promise<T> {
    const { space } = this.#options;
    if (space === undefined) return run();
    return space.withSideRoom(spaceForChanges(changes), this.#spaceForCommit(changes), run);
  }

  #spaceForCommit(changes: readonly Change[] = []): number {
    return spaceForCommit(this.#files, this.#paths, changes);
  }

  /**
   * Forgets digests, and names of images that stay, and unlinks the blobs, once `index.json` does not list them. Of
   * what a writer pins, or someone used since it was looked at, everything stays. Needs no more room than was made for a commit.
   *
   * @returns what went
   */
  async evict(blobs: readonly EvictedBlob[], names: readonly string[]): Promise<Digest[]> {
    return this.#exclusive('eviction', async () => {
      while (!this.#settle()) await this.#commit();
      const claims = new Map<Digest, Claim>();
      try {
        for (const { digest, usedAt } of blobs) {
          const claim = this.#options.claimBlob(digest);
          if (claim === undefined) continue;
          if (claim.usedAt !== undefined && (usedAt === undefined || claim.usedAt > usedAt)) claim.release();
          else claims.set(digest, claim);
        }
        const { table, journal } = this.#snapshot;
        const known = [...claims.keys()].filter((digest) => table.of(digest).length > 0);
        const changes: Change[] = [
          ...names.map((name): Change => ({ type: 'untag', name })),
          ...known.map((digest): Change => ({ type: 'remove', digest })),
        ];
        if (changes.length > 0) {
          journal?.append(changes);
          this.#catchUp();
          await this.#commit();
        }
        const gone = new Set(known);
        for (const [digest, claim] of claims) if (await claim.unlink()) gone.add(digest);
        return [...gone];
      } finally {
        for (const claim of claims.values()) claim.release();
      }
    });
  }

  /** Forgets digests and unlinks their blobs, once `index.json` does not list them any more. */
  async remove(digests: readonly Digest[]): Promise<Digest[]> {
    return this.#exclusive('removal', async () => {
      while (!this.#settle()) await this.#commit();
      const { table, reader, journal } = this.#snapshot;
      const known = digests.filter((digest) => table.lookup(digest).length > 0);
      const listed = known.some((digest) => reader.lookup(digest).length > 0);
      if (known.length > 0) {
        journal?.append(known.map((digest) => ({ type: 'remove', digest })));
        this.#catchUp();
        if (listed) await this.#commit();
        // Power loss must not bring back an entry whose blob is gone.
        else if (this.#options.fsync) await journal?.sync();
      }
      const removed = new Set(known);
      for (const digest of digests) if (await this.#options.unlinkBlob(digest)) removed.add(digest);
      return [...removed];
    });
  }

  /** Whether there is an entry of that digest. */
  knows(digest: Digest): boolean {
    return this.#look(({ table }) => table.of(digest).length > 0);
  }

  /**
   * Unlinks blobs that still have no entry when nobody can add one.
   *
   * @param mayGo is asked right before a blob is unlinked
   */
  async unlinkUnknown(
    digests: readonly Digest[],
    mayGo: (digest: Digest) => boolean = () => true,
  ): Promise<Digest[]> {
    return this.#exclusive('removal of orphans', async () => {
      while (!this.#settle()) await this.#commit();
      const removed: Digest[] = [];
      for (const digest of digests) {
        if (this.#snapshot.table.of(digest).length > 0 || !mayGo(digest)) continue;
        if (await this.#options.unlinkBlob(digest)) removed.push(digest);
      }
      return removed;
    });
  }

  /** Derived blobs that commits have superseded, and that are still here. */
  get retired(): readonly Digest[] {
    return this.#retired.list().map(({ digest }) => digest);
  }

  /** Unlinks derived blobs that were superseded so long ago. @param age ms */
  async dropRetired(age: number): Promise<boolean> {
    if (this.#retired.list().length === 0) return false;
    return this.#exclusive('eviction', async () => {
      this.#settle();
      return this.#retired.drop(age);
    });
  }

  /** Writes everything anew, whatever what is there looks like. */
  async rebuild(): Promise<void> {
    await this.#exclusive('rebuild', () => this.#commit(true));
  }

  /** Folds the journal into `index.json` and a new map. */
  async commit(): Promise<void> {
    await this.#background;
    this.#refresh();
    const { table } = this.#snapshot;
    // Asked of the disk now, however lately a lookup did: who commits wants to see what others just wrote.
    if (table.size === 0 && this.#snapshot.isCurrent() && this.#snapshot.isOnDisk()) return;
    await this.#withRoomFor([], () => this.#exclusive('commit', () => this.#commit()));
  }

  async close(): Promise<void> {
    try {
      await this.#background;
      if (this.#wroteAt !== 0) await this.commit();
      else if (await this.#isLeftBehind()) await this.#commitLeftBehind();
    } finally {
      this.abandon();
    }
  }

  /** A journal that nobody has written to for so long: whoever would have committed it has died. */
  async #isLeftBehind(): Promise<boolean> {
    if ((this.#snapshot.journal?.length ?? 0) === 0) return false;
    try {
      const { mtimeNs } = await this.#files.stat(this.#paths.journal);
      return Date.now() - Number(mtimeNs / 1_000_000n) >= MAX_AGE;
    } catch (error) {
      if (isSystemError(error)) return false;
      throw error;
    }
  }

  async #commitLeftBehind(): Promise<void> {
    try {
      await this.commit();
    } catch (error) {
      // Whoever may only read leaves it to others.
      if (!cannotWrite(error)) throw error;
    }
  }

  /** Lets go of everything, and commits nothing. */
  abandon(): void {
    clearTimeout(this.#timer);
    this.#lock.close();
    this.#snapshot.release();
  }

  /** @param maxAge how long ago the journal may have been looked at, in ms */
  #look<T>(read: (snapshot: Snapshot) => T, maxAge = 0): T {
    try {
      if (performance.now() - this.#refreshedAt >= maxAge) this.#refresh();
      return read(this.#snapshot);
    } catch (error) {
      this.#leaveMap(error);
      return read(this.#snapshot);
    }
  }

  /** Goes on from `index.json` and the journal when the map turns out to be damaged; throws any other error. */
  #leaveMap(error: unknown): void {
    if (!(error instanceof MapInvalid)) throw error;
    this.#options.logger.warn({
      message: 'the index map is damaged; index.json is read instead',
      ...errorFields(error),
    });
    this.#damagedMap = this.#snapshot.mapInode;
    this.#reload();
  }

  /** Takes up what others did. True when that was something. */
  #refresh(): boolean {
    const now = performance.now();
    this.#refreshedAt = now;
    const before = this.#snapshot;
    const grown = before.journal?.grown === true;
    if (grown) this.#catchUp();
    if (before.unsettled && !before.isOnDisk()) this.#reload();
    if (now >= this.#nextCheck) {
      this.#nextCheck = now + CHECK_INTERVAL;
      // Not in the middle of a commit, which changes one file after the other.
      if (!this.#snapshot.isOnDisk()) {
        this.#unlessLocked(() => {
          this.#reload();
        });
      }
    }
    return grown || this.#snapshot !== before;
  }

  #unlessLocked(run: () => void): void {
    try {
      this.#lock.tryShared(run);
    } catch (error) {
      if (!isSystemError(error, 'EROFS', 'EACCES', 'EPERM')) throw error;
      run();
    }
  }

  #reload(): void {
    const next = openSnapshot(this.#files, this.#paths, this.#damagedMap);
    this.#snapshot.release();
    this.#snapshot = next;
    this.#nextCheck = performance.now() + CHECK_INTERVAL;
    if (next.table.size === 0) this.#wroteAt = 0;
  }

  #catchUp(): void {
    try {
      this.#snapshot.catchUp();
    } catch (error) {
      this.#leaveMap(error);
    }
  }

  /** Under the lock: makes the snapshot that of the files on disk. False when they cannot be appended to. */
  #settle(): boolean {
    this.#catchUp();
    if (!this.#snapshot.isCurrent()) this.#reload();
    return this.#snapshot.isCurrent();
  }

  #tryAppend(changes: readonly Change[]): boolean | Promise<boolean> {
    if (!this.#settle()) return false;
    const { journal } = this.#snapshot;
    if (journal === undefined) return false;
    if (changes.every((change) => this.#isDone(change))) return true;
    journal.append(changes);
    this.#wroteAt ||= Date.now();
    this.#catchUp();
    return this.#options.fsync ? journal.sync().then(() => true) : true;
  }

  /** What changes nothing is not written, so that adding an image again does not end in a commit. */
  #isDone(change: Change): boolean {
    return change.type === 'put' && this.#snapshot.table.holds(change.entry.descriptor, change.entry.proven);
  }

  #commitWhenDue(): void {
    // Also when nothing more is written.
    this.#timer ??= setTimeout(() => {
      this.#timer = undefined;
      if (this.#wroteAt !== 0) this.#commitWhenDue();
    }, MAX_AGE).unref();
    const { journal, reader } = this.#snapshot;
    const limit = journalBound(Math.max(MIN_JOURNAL, reader.header.recordPages * 4096), this.#options.space);
    if ((journal?.length ?? 0) < limit && Date.now() - this.#wroteAt < MAX_AGE) return;
    this.#background ??= this.#exclusive('commit', async () => {
      this.#settle();
      if ((this.#snapshot.journal?.length ?? 0) > 0) await this.#commit();
    })
      .catch((error: unknown) => {
        this.#wroteAt = Date.now();
        this.#options.logger.warn({
          message: 'commit failed; the journal keeps everything',
          ...errorFields(error),
        });
      })
      .finally(() => {
        this.#background = undefined;
      });
  }

  #exclusive<T>(what: string, run: () => Promise<T>): Promise<T> {
    return this.#lock.exclusive(what, async () => {
      const { space } = this.#options;
      this.busy = true;
      try {
        await space?.borrow(this.#spaceForCommit(), what === 'eviction' || what === 'removal');
        return await run();
      } finally {
        this.busy = false;
        await space?.repay(this.#spaceForCommit());
      }
    });
  }

  async #commit(anew = false): Promise<void> {
    for (let done = false; !done;) {
      try {
        done = await this.#tryCommit(anew);
      } catch (error) {
        this.#leaveMap(error);
      }
    }
  }

  /** False when another tool changed `index.json` meanwhile. */
  async #tryCommit(anew: boolean): Promise<boolean> {
    this.#snapshot.catchUp();
    if (!this.#snapshot.isOnDisk() || this.#snapshot.unsettled) this.#reload();
    const snapshot = this.#snapshot;
    await this.#adopt(snapshot);
    const { table } = snapshot;
    const rewrite = anew || table.size > 0 || snapshot.index === undefined;
    if (!rewrite && snapshot.isCurrent()) return true;
    let derived: Derived | undefined;
    if (rewrite) {
      const comparable = snapshot.edit === undefined && !snapshot.reader.header.foreign;
      const changed = comparable ? table.changed : undefined;
      pairCounterparts(table, comparable ? snapshot.reader : undefined);
      derived = await this.#derive(snapshot, changed);
    }
    // A lookup meanwhile may open what is on disk anew; what is being written still needs this one's files.
    snapshot.retain();
    let done: boolean;
    try {
      done = await writeSnapshot(this.#files, this.#paths, this.#options.temps, snapshot, rewrite);
    } finally {
      snapshot.release();
    }
    if (done) this.#damagedMap = undefined;
    this.#reload();
    if (done && derived !== undefined) {
      const { table: written } = this.#snapshot;
      const superseded = derived.unlink.filter((digest) => written.of(digest).length === 0);
      await this.#retired.retire(superseded, new Set(derived.keep));
    }
    return done;
  }

  async #derive(snapshot: Snapshot, changed: ReadonlySet<Digest> | undefined): Promise<Derived | undefined> {
    const { extension, readBlob, writeBlob } = this.#options;
    const { table } = snapshot;
    const derived = await extension?.derive({
      get entries(): readonly Descriptor[] {
        return Array.from(table.all(), (entry) => entry.descriptor);
      },
      changed,
      readBlob,
      writeBlob,
    });
    for (const digest of derived?.drop ?? []) table.remove(digest);
    for (const descriptor of derived?.put ?? []) table.put(descriptor, false);
    return derived;
  }

  async #adopt(snapshot: Snapshot): Promise<void> {
    const { extension, readBlob, hasBlob } = this.#options;
    const { edit, table } = snapshot;
    if (extension === undefined || edit === undefined || edit.arrived.length === 0) return;
    const found = await extension.adopt({
      manifests: edit.arrived,
      readBlob,
      hasBlob,
      lookup: (key) => table.lookup(key),
      tagged: (name) => table.tagged(name),
    });
    for (const descriptor of found) table.put(descriptor, false);
  }
}

function cannotWrite(error: unknown): boolean {
  const cause = error instanceof Error && isSystemError(error.cause) ? error.cause : error;
  return isSystemError(cause, 'EROFS', 'EACCES', 'EPERM', 'ENOSPC', 'EDQUOT');
}
