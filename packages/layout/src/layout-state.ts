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
import { delay } from './abort.js';
import type { Claim } from './claim.js';
import { writeSnapshot } from './commit.js';
import { compareEntries, withoutName, type Entry } from './entry.js';
import type { EntrySource } from './entry-table.js';
import type { Derived, LayoutExtension } from './extension.js';
import { cannotStore, cannotWrite, isSystemError, storageError, type FileSystem } from './file-system.js';
import type { Change } from './journal-format.js';
import { changedNames, namesOf, remember } from './history.js';
import { LayoutLock } from './lock.js';
import { MapInvalid, type IndexIdentity } from './map-format.js';
import type { EntryTable } from './entry-table.js';
import { pairCounterparts } from './pairing.js';
import { journalBound, spaceForChanges, spaceForCommit } from './space/side-space.js';
import type { Space } from './space/space.js';
import { indexIdentity, openSnapshot, type Snapshot, type StatePaths } from './snapshot.js';
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

/** For how long another tool may take to write `index.json` in place, in ms. Skopeo does that in one go. */
const YOUNG = 1000;
/** How often to look whether it is done, in ms. */
export const TORN_POLL = 20;

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
  readonly claimBlob: (digest: Digest, corrupt?: bigint) => Claim | undefined;
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
  /** An `index.json` that says something else than its map, although it looks like the one it mirrors. */
  #edited: IndexIdentity | undefined;
  /** The inode of a map that cannot be read. */
  #damagedMap: bigint | undefined;
  #brokenTold = false;
  /** How many records of the journal cannot be understood, and were told of. */
  #unknownTold = 0;
  /** When this handle first appended something that is not committed, in ms; 0: nothing. */
  #wroteAt = 0;
  #background: Promise<void> | undefined;
  /** Until the journal is old enough to be committed. */
  #timer: NodeJS.Timeout | undefined;

  constructor(options: StateOptions) {
    const side = join(options.dir, '.layercache');
    this.#options = options;
    this.#files = options.files;
    this.#paths = {
      index: behindLink(options.files, join(options.dir, 'index.json')),
      map: join(side, 'map'),
      journal: join(side, 'journal'),
      history: join(side, 'history'),
      derivedNames: options.extension?.names ?? [],
      blob: options.blobPath,
    };
    this.#lock = new LayoutLock(options.files, join(side, 'lock'), options.lockTimeout, (holder) => {
      options.logger.warn({ message: 'waiting for the lock of the layout', dir: options.dir, holder });
    });
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
    this.#warnOfUnknown();
    this.#warnOfIndex();
    if (this.#snapshot.isCurrent()) return;
    try {
      await this.#withRoomFor([], () => this.#exclusive('opening', () => this.#commit()));
    } catch (error) {
      if (!cannotStore(error)) throw error;
      const level = isLockless(error) ? 'warn' : 'debug';
      this.#options.logger[level]({ message: 'side state kept in memory', ...errorFields(error) });
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
      const removed = new Set(await this.#forget(digests));
      for (const digest of digests) if (await this.#options.unlinkBlob(digest)) removed.add(digest);
      return [...removed];
    });
  }

  /**
   * Unlinks a blob if that is still the file that was found to be corrupt, and forgets its digest unless the bytes can
   * be had elsewhere. A file that has taken its place, or that a writer pins, stays with its entries.
   */
  async dropCorrupt(digest: Digest, ino: bigint): Promise<boolean> {
    return this.#exclusive('removal', async () => {
      while (!this.#settle()) await this.#commit();
      const claim = this.#options.claimBlob(digest, ino);
      try {
        if (claim?.ino !== ino) return false;
        const entries = this.#snapshot.table.of(digest);
        const { extension } = this.#options;
        const stays = entries.some(({ descriptor }) => extension?.isElsewhere?.(descriptor) === true);
        if (stays) return await claim.unlink();
        await this.#forget([digest]);
        if (await claim.unlink()) return true;
        // Someone put another file in its place just now.
        const { journal } = this.#snapshot;
        if (entries.length > 0) journal?.append(entries.map((entry) => ({ type: 'put', entry })));
        this.#catchUp();
        if (this.#options.fsync) await journal?.sync();
        return false;
      } finally {
        claim?.release();
      }
    });
  }

  /** Under the lock: removes the entries of digests from `index.json` and the journal. Returns what there was. */
  async #forget(digests: readonly Digest[]): Promise<Digest[]> {
    const { table, reader, journal } = this.#snapshot;
    const known = digests.filter((digest) => table.lookup(digest).length > 0);
    if (known.length === 0) return known;
    const listed = known.some((digest) => reader.lookup(digest).length > 0);
    journal?.append(known.map((digest) => ({ type: 'remove', digest })));
    this.#catchUp();
    if (listed) await this.#commit();
    // Power loss must not bring back an entry whose blob is gone.
    else if (this.#options.fsync) await journal?.sync();
    return known;
  }

  /** The entries of a digest, under any of its names. */
  of(digest: Digest): readonly Entry[] {
    return this.#look(({ table }) => table.of(digest));
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
      await this.#options.space?.recount();
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

  /**
   * Writes everything anew, whatever what is there looks like.
   *
   * @param edited `index.json` was changed although it looks like the one that the map mirrors
   */
  async rebuild(edited = false): Promise<void> {
    if (edited) {
      this.#edited = indexIdentity(this.#files, this.#paths.index);
      this.#reload();
    }
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
    if (!(error instanceof MapInvalid)) throw storageError(error, `read the index of ${this.#options.dir}`);
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
    if (before.unsettled && !before.isOnDisk()) this.#reloadIfWhole();
    if (now >= this.#nextCheck) {
      this.#nextCheck = now + CHECK_INTERVAL;
      // Not in the middle of a commit, which changes one file after the other.
      if (!this.#snapshot.isOnDisk()) {
        this.#unlessLocked(() => {
          this.#reloadIfWhole();
        });
      }
    }
    return grown || this.#snapshot !== before;
  }

  #unlessLocked(run: () => void): void {
    try {
      this.#lock.tryShared(run);
    } catch (error) {
      if (!isSystemError(error, 'EROFS', 'EACCES', 'EPERM', 'ENOLCK')) throw error;
      run();
    }
  }

  /** What `index.json` was before stands while another tool writes it in place, and when that has left it broken. */
  #reloadIfWhole(): void {
    try {
      this.#reload();
      this.#brokenTold = false;
    } catch (error) {
      if (!isLayercacheError(error, 'LAYOUT_INVALID')) throw error;
      this.#nextCheck = performance.now() + CHECK_INTERVAL;
      if (this.#brokenTold || this.#isBeingWritten(error)) return;
      this.#brokenTold = true;
      this.#options.logger.warn({
        message: 'index.json is broken; lookups go on with what it said before',
        ...errorFields(error),
      });
    }
  }

  #isBeingWritten(error: unknown): boolean {
    return isLayercacheError(error, 'LAYOUT_INVALID') && isYoung(this.#files, this.#paths.index);
  }

  #reload(): void {
    const next = openSnapshot(this.#files, this.#paths, this.#damagedMap, this.#edited);
    this.#snapshot.release();
    this.#snapshot = next;
    this.#nextCheck = performance.now() + CHECK_INTERVAL;
    if (next.table.size === 0) this.#wroteAt = 0;
    this.#warnOfUnknown();
    this.#warnOfIndex();
  }

  #catchUp(): void {
    try {
      this.#snapshot.catchUp();
    } catch (error) {
      this.#leaveMap(error);
    }
    this.#warnOfUnknown();
  }

  #warnOfIndex(): void {
    const { index, mapInode, left } = this.#snapshot;
    if (left > 0) {
      this.#options.logger.warn({
        message: 'entries of index.json were left out, because their size is one that no blob can have',
        path: this.#paths.index,
        entries: left,
      });
    }
    if (index !== undefined || mapInode === undefined) return;
    this.#options.logger.warn({
      message: 'index.json is missing; what it said comes from the index map, and it will be written again',
      path: this.#paths.index,
    });
  }

  /** Tells once of records that a newer version wrote, and that are skipped. */
  #warnOfUnknown(): void {
    const records = this.#snapshot.journal?.unknown.length ?? 0;
    if (records > this.#unknownTold) {
      this.#options.logger.warn({
        message:
          'records of the journal are of a newer version and were skipped; use that version, or drop them with verify --repair',
        path: this.#paths.journal,
        records,
      });
    }
    this.#unknownTold = records;
  }

  /** Under the lock: makes the snapshot that of the files on disk. False when they cannot be appended to. */
  #settle(): boolean {
    this.#catchUp();
    if (!this.#snapshot.isCurrent()) this.#reloadIfWhole();
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
      try {
        await space?.borrow(this.#spaceForCommit(), what === 'eviction' || what === 'removal');
        return await run();
      } finally {
        await space?.repay(this.#spaceForCommit());
      }
    });
  }

  async #commit(anew = false): Promise<void> {
    for (let done = false; !done;) {
      try {
        done = await this.#tryCommit(anew);
      } catch (error) {
        if (this.#isBeingWritten(error)) await delay(TORN_POLL, undefined);
        else this.#leaveMap(error);
      }
    }
  }

  /** False when another tool changed `index.json` meanwhile. */
  async #tryCommit(anew: boolean): Promise<boolean> {
    this.#snapshot.catchUp();
    if (!this.#snapshot.isOnDisk() || this.#snapshot.unsettled) this.#reload();
    const snapshot = this.#snapshot;
    // Before anything of it can go: what goes is given back, and must have been counted.
    if (snapshot.edit !== undefined) await this.#options.space?.recount();
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
      await this.#remember(snapshot);
    }
    // A lookup meanwhile may open what is on disk anew; what is being written still needs this one's files.
    snapshot.retain();
    let done: boolean;
    try {
      done = await writeSnapshot(this.#files, this.#paths, this.#options.temps, snapshot, rewrite, anew);
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

  /** Notes what the commit does to names, for tools that have read `index.json` before it and will write it after. */
  async #remember(snapshot: Snapshot): Promise<void> {
    const { table, edit, reader } = snapshot;
    const marker = this.#paths.derivedNames[0];
    const derived = marker === undefined ? undefined : table.tagged(marker)?.descriptor.digest;
    if (derived === undefined) return;
    const before = edit?.before ?? reader;
    const touched = edit === undefined ? [...table.changed] : undefined;
    const candidates = function* (): Generator<string> {
      yield* namesOf(before, touched);
      yield* namesOf(table, touched);
    };
    const names = changedNames(candidates(), before, table);
    await remember(this.#files, this.#paths.history, this.#options.temps, { derived, names });
  }

  async #derive(snapshot: Snapshot, changed: ReadonlySet<Digest> | undefined): Promise<Derived | undefined> {
    const { extension, readBlob, writeBlob } = this.#options;
    const { table } = snapshot;
    const all = entriesOf(table);
    const derived = await extension?.derive({
      get entries(): readonly Descriptor[] {
        return all().entries;
      },
      get proven(): ReadonlySet<Digest> {
        return all().proven;
      },
      superseded: snapshot.edit?.superseded ?? [],
      changed,
      readBlob,
      writeBlob,
    });
    for (const digest of derived?.drop ?? []) table.remove(digest);
    for (const descriptor of derived?.put ?? []) table.put(descriptor, false);
    return derived;
  }

  async #adopt({ edit, table }: Snapshot): Promise<void> {
    if (edit === undefined) return;
    for (const descriptor of await this.#adopted(table, edit.arrived)) table.put(descriptor, false);
  }

  /** Puts what manifests and indexes bring that have just been found here. */
  async adopt(manifests: readonly Descriptor[]): Promise<void> {
    const found = await this.#adopted(this.#snapshot.table, manifests);
    if (found.length === 0) return;
    await this.append(found.map((descriptor) => ({ type: 'put', entry: { descriptor, proven: false } })));
  }

  async #adopted(table: EntryTable, manifests: readonly Descriptor[]): Promise<readonly Descriptor[]> {
    const { extension, readBlob, hasBlob } = this.#options;
    if (extension === undefined || manifests.length === 0) return [];
    const found = await extension.adopt({
      manifests,
      readBlob,
      hasBlob,
      lookup: (key) => table.lookup(key),
      tagged: (name) => table.tagged(name),
    });
    // What another document calls something moves no name that is here.
    return found.map((descriptor) => {
      const holder = table.tagged(refName(descriptor) ?? '')?.descriptor.digest ?? descriptor.digest;
      return holder === descriptor.digest ? descriptor : withoutName(descriptor);
    });
  }

  /** Whether the owner of the layout made this document from all entries. */
  isDerived(bytes: Uint8Array, digest: Digest): boolean {
    return this.#options.extension?.recognise?.(bytes, digest) !== undefined;
  }
}

/** The file that a symbolic link leads to, so that the link stays when the file is replaced. */
function behindLink(files: FileSystem, path: string): string {
  try {
    return files.realpathSync(path);
  } catch (error) {
    if (isSystemError(error, 'ENOENT', 'ENOTDIR')) return path;
    throw error;
  }
}

/** Whether `index.json` was changed so lately that whoever writes it in place may not be done. */
export function isYoung(files: FileSystem, path: string): boolean {
  const identity = indexIdentity(files, path);
  return identity !== undefined && Math.abs(Date.now() - Number(identity.mtimeNs / 1_000_000n)) < YOUNG;
}

/** All entries of a table, and the digests of those that are proven: read once, when somebody asks. */
function entriesOf(
  table: EntrySource,
): () => { entries: readonly Descriptor[]; proven: ReadonlySet<Digest> } {
  let read: { entries: Descriptor[]; proven: Set<Digest> } | undefined;
  return () => {
    if (read !== undefined) return read;
    read = { entries: [], proven: new Set() };
    for (const { descriptor, proven } of table.all()) {
      read.entries.push(descriptor);
      if (proven) read.proven.add(descriptor.digest);
    }
    return read;
  };
}

function isLockless(error: unknown): boolean {
  return isSystemError(error instanceof Error && isSystemError(error.cause) ? error.cause : error, 'ENOLCK');
}
