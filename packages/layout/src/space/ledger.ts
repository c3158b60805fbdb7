import { constants } from 'node:fs';
import { join } from 'node:path';
import { isSystemError, type FileSystem } from '../file-system.js';
import { LayoutLock } from '../lock.js';
import { folderSize } from './folder-size.js';

/** How many handles can share a limited layout at a time. */
const SLOTS = 254;
/** Bytes of a slot. The first two are the head: magic and total, reserve and who borrowed it. */
const WIDTH = 16;
const FIRST = 2;
const SIZE = WIDTH * (SLOTS + FIRST);
const MAGIC = 0x4c435350n; // "PSCL"

/** What one handle has taken and not yet written, in bytes. */
export interface Holding {
  /** All of it. */
  readonly credit: number;
  /** The part of it that is for blobs on their way: it will be files or be given back before long. */
  readonly rooms: number;
}

/**
 * How many bytes are spoken for in a layout, agreed upon by all handles of all processes that limit it: those that
 * files have, and those that handles have taken and not yet written (their credit). Bytes are taken before they are
 * written, and given back after they were unlinked, so that the files are never more than the total says.
 *
 * `.layercache/space/ledger` holds the total, and the credit of each handle in a slot of its own. A handle holds a
 * kernel lock on a file named like its slot: when it dies, its credit is free for whoever looks.
 */
export class Ledger {
  readonly #files: FileSystem;
  readonly #dir: string;
  readonly #layoutDir: string;
  readonly #lock: LayoutLock;
  readonly #fd: number;
  #slot = 0;
  #slotFd: number | undefined;

  private constructor(files: FileSystem, layoutDir: string, lockTimeout: number) {
    this.#files = files;
    this.#layoutDir = layoutDir;
    this.#dir = join(layoutDir, '.layercache', 'space');
    files.mkdirSync(this.#dir);
    this.#lock = new LayoutLock(files, join(this.#dir, 'lock'), lockTimeout);
    this.#fd = files.openSync(join(this.#dir, 'ledger'), constants.O_RDWR | constants.O_CREAT, 0o666);
  }

  /** The first of a layout's handles counts its files; others take over what is counted. */
  static async join(files: FileSystem, layoutDir: string, lockTimeout: number): Promise<Ledger> {
    const ledger = new Ledger(files, layoutDir, lockTimeout);
    try {
      await ledger.locked(() => {
        ledger.#takeSlot();
      });
      return ledger;
    } catch (error) {
      ledger.#close();
      throw error;
    }
  }

  /** Whether a handle of some process limits the layout just now. */
  static isKept(files: FileSystem, layoutDir: string): boolean {
    const dir = join(layoutDir, '.layercache', 'space');
    try {
      return files.readdirSync(dir).some((name) => /^\d+$/.test(name) && isLocked(files, join(dir, name)));
    } catch (error) {
      if (isSystemError(error)) return false;
      throw error;
    }
  }

  /** Nobody else takes, gives back, replaces or unlinks meanwhile. */
  locked<T>(run: () => T | Promise<T>): Promise<T> {
    return this.#lock.exclusive(undefined, async () => run());
  }

  /** Bytes spoken for. Only while locked. */
  get total(): number {
    return Number(this.#read(0)[1]);
  }

  set total(bytes: number) {
    this.#write(0, [MAGIC, BigInt(bytes)]);
  }

  /**
   * Bytes of the total that are kept for the next commit, whoever makes it: without them nothing could be evicted. One
   * is enough for all, since commits are made one at a time. Only while locked.
   */
  get reserve(): number {
    return Number(this.#read(1)[0]);
  }

  /** Whether a commit uses the reserve just now, and is going to put it back. */
  get borrowed(): boolean {
    return this.#read(1)[1] !== 0n;
  }

  /** @param borrowed by this handle */
  setReserve(bytes: number, borrowed: boolean): void {
    this.#write(1, [BigInt(bytes), borrowed ? BigInt(this.#slot) : 0n]);
  }

  /** Writes down what this handle holds. What is written must never be more than what it has. */
  record({ credit, rooms }: Holding): void {
    this.#write(this.#slot, [BigInt(credit), BigInt(rooms)]);
  }

  /** What all other handles hold. */
  others(): Holding {
    let credit = 0;
    let rooms = 0;
    const bytes = this.#readAll();
    for (let slot = FIRST; slot < FIRST + SLOTS; slot++) {
      if (slot === this.#slot) continue;
      credit += Number(bytes.readBigUInt64LE(slot * WIDTH));
      rooms += Number(bytes.readBigUInt64LE(slot * WIDTH + 8));
    }
    return { credit, rooms };
  }

  /** Only while locked: frees what the dead held. True when that was something. */
  reclaim(): boolean {
    let freed = 0;
    const bytes = this.#readAll();
    for (let slot = FIRST; slot < FIRST + SLOTS; slot++) {
      const credit = Number(bytes.readBigUInt64LE(slot * WIDTH));
      if (credit === 0 || slot === this.#slot) continue;
      const fd = this.#lockSlot(slot);
      if (fd === undefined) continue;
      try {
        this.#write(slot, [0n, 0n]);
        this.total -= credit;
        if (this.#read(1)[1] === BigInt(slot)) this.setReserve(this.reserve, false);
        freed += credit;
      } finally {
        this.#files.closeSync(fd);
      }
    }
    return freed > 0;
  }

  /** Gives back what this handle holds, and lets go of everything. */
  async leave(credit: number): Promise<void> {
    try {
      await this.locked(() => {
        this.record({ credit: 0, rooms: 0 });
        this.total -= credit;
      });
    } finally {
      this.#close();
    }
  }

  #close(): void {
    this.#lock.close();
    if (this.#slotFd !== undefined) this.#files.closeSync(this.#slotFd);
    this.#slotFd = undefined;
    this.#files.closeSync(this.#fd);
  }

  #takeSlot(): void {
    if (Number(this.#files.fstatSync(this.#fd).size) !== SIZE) {
      this.#files.writeSync(this.#fd, Buffer.alloc(SIZE), 0);
    }
    const [magic] = this.#read(0);
    let alone = true;
    for (let slot = FIRST; slot < FIRST + SLOTS; slot++) {
      const known = this.#exists(slot);
      if (!known && this.#slotFd !== undefined) break;
      const fd = this.#lockSlot(slot);
      if (fd === undefined) {
        alone = false;
      } else if (this.#slotFd === undefined) {
        this.#slotFd = fd;
        this.#slot = slot;
      } else {
        this.#files.closeSync(fd);
      }
    }
    if (this.#slotFd === undefined) {
      throw Object.assign(new Error(`more than ${SLOTS} handles share the limit`), {
        code: 'EDQUOT',
        syscall: 'open',
      });
    }
    if (alone || magic !== MAGIC) {
      this.#files.writeSync(this.#fd, Buffer.alloc(SIZE - WIDTH), WIDTH);
      this.total = folderSize(this.#files, this.#layoutDir);
      return;
    }
    const before = Number(this.#read(this.#slot)[0]);
    this.record({ credit: 0, rooms: 0 });
    if (before > 0) this.total -= before;
  }

  #exists(slot: number): boolean {
    try {
      this.#files.statSync(join(this.#dir, String(slot)));
      return true;
    } catch (error) {
      if (isSystemError(error, 'ENOENT')) return false;
      throw error;
    }
  }

  #lockSlot(slot: number): number | undefined {
    const flags = constants.O_RDWR | constants.O_CREAT;
    const fd = this.#files.openSync(join(this.#dir, String(slot)), flags, 0o666);
    if (this.#files.tryLock(fd, 'exclusive')) return fd;
    this.#files.closeSync(fd);
    return undefined;
  }

  #readAll(): Buffer {
    const bytes = Buffer.alloc(SIZE);
    this.#files.readSync(this.#fd, bytes, 0, SIZE, 0);
    return bytes;
  }

  #read(slot: number): [bigint, bigint] {
    const bytes = Buffer.alloc(WIDTH);
    this.#files.readSync(this.#fd, bytes, 0, WIDTH, slot * WIDTH);
    return [bytes.readBigUInt64LE(0), bytes.readBigUInt64LE(8)];
  }

  #write(slot: number, [first, second]: [bigint, bigint]): void {
    const bytes = Buffer.alloc(WIDTH);
    bytes.writeBigUInt64LE(first < 0n ? 0n : first, 0);
    bytes.writeBigUInt64LE(second < 0n ? 0n : second, 8);
    this.#files.writeSync(this.#fd, bytes, slot * WIDTH);
  }
}

function isLocked(files: FileSystem, path: string): boolean {
  const fd = files.openSync(path, 'r+');
  try {
    return !files.tryLock(fd, 'exclusive');
  } finally {
    files.closeSync(fd);
  }
}
