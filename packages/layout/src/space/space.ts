import { CacheFullError, throwIfAborted } from '@layercache/oci';
import { delay } from '../abort.js';
import { SpaceExhausted, isSystemError, type FileSystem } from '../file-system.js';
import { folderSize } from './folder-size.js';
import { Ledger } from './ledger.js';
import type { LimitOptions, RoomMade, Shortage } from './limits.js';

/** Bytes taken at a time for a blob whose size is not known. */
const STEP = 8 * 1024 * 1024;
/** How often to look whether other processes are done with what they took, in ms. */
const POLL = 25;
/** Bytes that are taken for the journal at a time, so that not each put takes some. */
const CHUNK = 64 * 1024;

/** Room for one blob on its way. Given back when it is released; the part that became a file stays counted. */
export interface Room {
  /** What is written to this file comes out of this room. */
  cover(fd: number): void;
  /** Makes sure that the blob may have that many bytes. */
  ensure(bytes: number): Promise<void>;
  release(): Promise<void>;
}

export interface ReserveOptions {
  readonly signal?: AbortSignal | undefined;
  /** Bytes of it that are there already. Default: 0. */
  readonly written?: number;
  /** It can be made again from what is here. Default: false. */
  readonly derived?: boolean;
}

/** Bytes that this handle has taken for something. */
interface Account {
  readonly derived: boolean;
  left: number;
}

/**
 * The limits of a layout, as one handle sees them. Every byte that a file gains comes out of an account, which was
 * filled from the ledger before; every byte that a file loses goes into one. Blobs have accounts of their own
 * ({@link Room}); all else, `index.json`, map, journal, shares one.
 */
export class Space {
  readonly #files: FileSystem;
  readonly #dir: string;
  readonly #ledger: Ledger;
  readonly #limits: LimitOptions;
  readonly #patience: number;
  readonly #step: number;
  readonly #chunk: number;
  readonly #side: Account = { left: 0, derived: false };
  readonly #rooms = new Set<Account>();
  readonly #covered = new Map<number, Account>();
  #last: Promise<unknown> = Promise.resolve();
  /** Bytes that the next commit may need. */
  #need = 0;
  /** How much of them was in reserve when this handle last looked. Whoever takes it puts it back. */
  #reserveSeen = 0;
  #borrowed = false;
  /** Whether this handle has stored anything. A handle that only looks writes what fits and evicts nothing. */
  #stores = false;
  /** Bytes of the side account that callers count on. */
  #promised = 0;

  private constructor(
    files: FileSystem,
    dir: string,
    ledger: Ledger,
    limits: LimitOptions,
    patience: number,
  ) {
    this.#files = files;
    this.#dir = dir;
    this.#ledger = ledger;
    this.#limits = limits;
    this.#patience = patience;
    this.#step = Math.min(STEP, Math.ceil(this.maxSize / 16));
    this.#chunk = Math.min(CHUNK, Math.ceil(this.maxSize / 256));
  }

  /** @param patience how long to wait for the lock, or for others who hold room, in ms */
  static async open(files: FileSystem, dir: string, limits: LimitOptions, patience: number): Promise<Space> {
    return new Space(files, dir, await Ledger.join(files, dir, patience), limits, patience);
  }

  get maxSize(): number {
    return this.#limits.maxSize ?? Infinity;
  }

  get maxEntries(): number {
    return this.#limits.maxEntries ?? Infinity;
  }

  /** Bytes that all files together have and may come to have with what is taken. */
  total(): Promise<number> {
    return this.#ledger.locked(() => this.#ledger.total);
  }

  /**
   * Takes room for a blob.
   *
   * @param size in bytes; undefined: not known, it is taken step by step
   * @throws LayercacheError `CACHE_FULL` when it does not fit, whatever goes
   */
  async reserve(size: number | undefined, options: ReserveOptions = {}): Promise<Room> {
    const { signal, written = 0, derived = false } = options;
    const account: Account = { left: 0, derived };
    this.#stores = true;
    const fds = new Set<number>();
    await this.#fill(account, Math.max(0, (size ?? written + this.#step) - written), signal);
    let granted = Math.max(size ?? written + this.#step, written);
    return {
      cover: (fd) => {
        fds.add(fd);
        this.#covered.set(fd, account);
      },
      ensure: async (bytes) => {
        if (bytes <= granted) return;
        const more = Math.max(this.#step, bytes - granted);
        await this.#fill(account, more, signal, true);
        granted += more;
      },
      release: async () => {
        for (const fd of fds) this.#covered.delete(fd);
        this.#rooms.delete(account);
        this.#side.left += account.left;
        account.left = 0;
        await this.trim();
      },
    };
  }

  /** @param commit bytes that a commit would need now: they are kept in reserve from the first room on */
  expect(commit: number): void {
    this.#need = commit;
  }

  /**
   * Does something that writes to the journal, or to small files of the side state, once there is room for it and for
   * a commit after it.
   *
   * @param bytes that are written now
   * @param commit bytes that a commit may then need; undefined: no more than before
   */
  async withSideRoom<T>(bytes: number, commit: number | undefined, run: () => Promise<T>): Promise<T> {
    this.#need = commit ?? this.#need;
    this.#stores ||= commit !== undefined && bytes > 0;
    this.#promised += bytes;
    try {
      if (this.#side.left < this.#promised || this.#reserveSeen < this.#need) {
        await this.#fill(this.#side, Math.max(0, this.#promised - this.#side.left) + this.#chunk);
      }
      return await run();
    } finally {
      this.#promised -= bytes;
    }
  }

  /**
   * Takes over the reserve for a commit, under the exclusive lock of the layout. Until it is repaid, what files lose
   * is kept for others that grow.
   *
   * @param overdraw go over the limit if need be: what is written makes room
   */
  async borrow(commit: number, overdraw: boolean): Promise<void> {
    await this.#ledger.locked(() => {
      this.#need = commit;
      this.#borrowed = true;
      const missing = Math.max(0, commit - (this.#side.left - this.#promised) - this.#ledger.reserve);
      const { total } = this.#ledger;
      const more = overdraw || total + missing <= this.maxSize ? missing : 0;
      this.#ledger.total = total + more;
      this.#side.left += more + this.#ledger.reserve;
      // In this order, and so everywhere: who dies in between leaves too much counted, never too little.
      this.#ledger.setReserve(0, true);
      this.#record();
    });
  }

  async repay(commit: number): Promise<void> {
    this.#borrowed = false;
    await this.#ledger.locked(() => {
      this.#need = commit;
      const given = Math.max(0, Math.min(this.#side.left, commit - this.#ledger.reserve));
      this.#side.left -= given;
      this.#record();
      this.#reserveSeen = this.#ledger.reserve + given;
      this.#ledger.setReserve(this.#reserveSeen, false);
      this.#giveBack();
    });
  }

  /** Takes out of the account of a file. */
  draw(fd: number | undefined, bytes: number): void {
    if (bytes <= 0) return;
    const account = this.#account(fd);
    if (account.left < bytes) {
      throw new SpaceExhausted(
        `${bytes} bytes more do not fit: ${account.left} are left of the limit of ${this.maxSize}`,
      );
    }
    account.left -= bytes;
    // Before the bytes are there: what a dead process had must not be taken for free.
    this.#record();
  }

  refund(fd: number | undefined, bytes: number): void {
    if (bytes <= 0) return;
    this.#account(fd).left += bytes;
    this.#record();
  }

  forget(fd: number): void {
    this.#covered.delete(fd);
  }

  /** Does what makes a file go away or be replaced, and takes its bytes back. */
  async replacing<T>(path: string, run: () => Promise<T>): Promise<T> {
    return this.#ledger.locked(async () => {
      const size = this.#sizeOf(path);
      const result = await run();
      this.#side.left += size;
      this.#giveBack();
      return result;
    });
  }

  /** Gives back what the side account has too much. */
  async trim(): Promise<void> {
    await this.#ledger.locked(() => {
      this.#giveBack();
    });
  }

  /**
   * Counts what other tools wrote without taking room for it. Files that come or go meanwhile make it less than there
   * is, so a higher count stands until the last handle is closed.
   */
  async recount(): Promise<void> {
    await this.#ledger.locked(() => {
      const before = this.#ledger.others().credit;
      const size = folderSize(this.#files, this.#dir);
      const others = Math.min(before, this.#ledger.others().credit);
      const found = size + others + this.#credit() + this.#ledger.reserve;
      if (found > this.#ledger.total) this.#ledger.total = found;
    });
  }

  async close(): Promise<void> {
    await this.#ledger.leave(this.#credit());
  }

  #account(fd: number | undefined): Account {
    return (fd === undefined ? undefined : this.#covered.get(fd)) ?? this.#side;
  }

  #credit(): number {
    return this.#side.left + this.#reserved();
  }

  #reserved(): number {
    let sum = 0;
    for (const { left } of this.#rooms) sum += left;
    return sum;
  }

  #record(): void {
    const rooms = this.#reserved();
    this.#ledger.record({ credit: this.#side.left + rooms, rooms });
  }

  /** Under the lock of the ledger. */
  #giveBack(): void {
    const surplus = this.#borrowed ? 0 : Math.max(0, this.#side.left - Math.max(this.#chunk, this.#promised));
    this.#side.left -= surplus;
    this.#record();
    if (surplus > 0) this.#ledger.total -= surplus;
  }

  /** @param growing it is for a room that is held already: then others are not waited for, who may wait for it */
  async #fill(account: Account, bytes: number, signal?: AbortSignal, growing = false): Promise<void> {
    const deadline = Date.now() + this.#patience;
    for (;;) {
      throwIfAborted(signal);
      if (bytes + this.#need > this.maxSize) throw this.#full(bytes, true);
      if (await this.#oneByOne(() => this.#tryFill(account, bytes))) return;
      if (growing || account.derived || Date.now() > deadline || !this.#othersAreBusy())
        throw this.#full(bytes, false);
      await delay(POLL, signal);
    }
  }

  async #tryFill(account: Account, bytes: number): Promise<boolean> {
    for (;;) {
      const shortage = await this.#ledger.locked(() => {
        const short = this.#take(account, bytes);
        return short !== undefined && this.#ledger.reclaim() ? this.#take(account, bytes) : short;
      });
      if (shortage === undefined) return true;
      if (!this.#stores || (await this.makeRoom(shortage)) === 'busy') return false;
    }
  }

  async makeRoom(shortage: Shortage): Promise<RoomMade> {
    return (await this.#limits.makeRoom?.(shortage)) ?? 'busy';
  }

  /** Under the lock of the ledger: takes, or says how much is missing. */
  #take(account: Account, bytes: number): Shortage | undefined {
    const { total, reserve, borrowed } = this.#ledger;
    const refill = borrowed ? 0 : Math.max(0, this.#need - reserve);
    const more = bytes + refill;
    const over = total + more - this.maxSize;
    const missing = Math.max(over, this.#missingOnDisk(more));
    if (missing > 0) return { bytes: missing, entries: 0, derived: account.derived };
    this.#ledger.total = total + more;
    this.#reserveSeen = borrowed ? this.#reserveSeen : reserve + refill;
    if (refill > 0) this.#ledger.setReserve(this.#reserveSeen, false);
    account.left += bytes;
    if (account !== this.#side) this.#rooms.add(account);
    this.#record();
    return undefined;
  }

  #missingOnDisk(more: number): number {
    const { minFree } = this.#limits;
    if (minFree === undefined) return 0;
    const promised = this.#credit() + this.#ledger.others().credit + this.#ledger.reserve;
    return minFree + promised + more - this.#files.freeSpaceSync(this.#dir);
  }

  #othersAreBusy(): boolean {
    return this.#rooms.size > 0 || this.#ledger.others().rooms > 0;
  }

  #oneByOne<T>(run: () => Promise<T>): Promise<T> {
    const result = this.#last.then(run);
    this.#last = result.catch(() => undefined);
    return result;
  }

  #sizeOf(path: string): number {
    try {
      return Number(this.#files.statSync(path).size);
    } catch (error) {
      if (isSystemError(error, 'ENOENT', 'ENOTDIR')) return 0;
      throw error;
    }
  }

  #full(bytes: number, neverFits: boolean): CacheFullError {
    const { maxSize, minFree } = this.#limits;
    const limits = [
      ...(maxSize === undefined ? [] : [`${maxSize} bytes at most`]),
      ...(minFree === undefined ? [] : [`${minFree} bytes of the disk free`]),
    ].join(', ');
    return new CacheFullError(
      `${bytes} bytes more do not fit into ${this.#dir} (${limits}), whatever is evicted; raise the limit, unpin or remove something`,
      { bytes, neverFits },
    );
  }
}
