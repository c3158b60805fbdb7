import { constants } from 'node:fs';
import { dirname } from 'node:path';
import { LayercacheError } from '@layercache/oci';
import { isSystemError, type FileSystem } from './file-system.js';

/** Tries before the first sleep: shared holders append one record, which takes microseconds. */
const SPINS = 50;
/** Longest sleep between two tries, in ms. */
const MAX_SLEEP = 10;

/** How often a holder shows that it is not stuck, in ms. */
const HEARTBEAT = 1000;
/** A wait that is told of, in ms. */
const LONG_WAIT = 2000;

type Mode = 'shared' | 'exclusive';

/**
 * The lock of a layout: a kernel lock on `.layercache/lock`, gone when its holder dies. Shared to append to the
 * journal, exclusive to commit and to remove. Callers of one handle take it one after the other, in order.
 */
export class LayoutLock {
  readonly #files: FileSystem;
  readonly #path: string;
  readonly #timeout: number;
  #fd: number | undefined;
  #ino = -1n;
  /** How many callers of this handle hold it or wait for it, and when the last of them is done. */
  #waiting = 0;
  #last: Promise<void> | undefined;

  readonly #onWait: (holder: string) => void;

  /**
   * @param timeout how long to wait for a holder that makes no progress, in ms
   * @param onWait is told once of each long wait, and who holds the lock for what
   */
  constructor(
    files: FileSystem,
    path: string,
    timeout: number,
    onWait: (holder: string) => void = () => undefined,
  ) {
    this.#onWait = onWait;
    this.#files = files;
    this.#path = path;
    this.#timeout = timeout;
  }

  /** @throws LayercacheError `LOCK_TIMEOUT` */
  shared<T>(run: () => T | Promise<T>): Promise<T> {
    return this.#enqueue(() => this.#with('shared', run));
  }

  /**
   * @param what is told to others who wait in vain; undefined: nothing is, and nothing is written
   * @throws LayercacheError `LOCK_TIMEOUT`
   */
  exclusive<T>(what: string | undefined, run: () => Promise<T>): Promise<T> {
    return this.#enqueue(() =>
      this.#with('exclusive', async () => {
        if (what !== undefined) this.#sign(`process ${process.pid} (${what})`);
        const beat = what === undefined ? undefined : this.#beat();
        try {
          return await run();
        } finally {
          clearInterval(beat);
          if (what !== undefined) this.#sign('');
        }
      }),
    );
  }

  /** Runs only if nobody has the lock exclusively, without waiting. */
  tryShared<T>(run: () => T): T | undefined {
    if (this.#waiting > 0 || !this.#take('shared')) return undefined;
    try {
      return run();
    } finally {
      this.#release();
    }
  }

  close(): void {
    if (this.#fd !== undefined) this.#files.closeSync(this.#fd);
    this.#fd = undefined;
  }

  async #enqueue<T>(run: () => Promise<T>): Promise<T> {
    const before = this.#waiting > 0 ? this.#last : undefined;
    let done: (() => void) | undefined;
    this.#last = new Promise<void>((resolve) => (done = resolve));
    this.#waiting++;
    try {
      await before;
      return await run();
    } finally {
      this.#waiting--;
      done?.();
    }
  }

  async #with<T>(mode: Mode, run: () => T | Promise<T>): Promise<T> {
    await this.#wait(mode);
    try {
      return await run();
    } finally {
      this.#release();
    }
  }

  async #wait(mode: Mode): Promise<void> {
    for (let spin = 0; spin < SPINS; spin++) if (this.#take(mode)) return;
    const start = Date.now();
    let progress = this.#progress();
    let since = start;
    let isTold = false;
    for (let sleep = 1; !this.#take(mode); sleep = Math.min(sleep * 2, MAX_SLEEP)) {
      const now = Date.now();
      const latest = this.#progress();
      if (latest !== progress) [progress, since] = [latest, now];
      if (now - since >= this.#timeout) throw this.#timeoutError();
      if (!isTold && now - start >= LONG_WAIT) {
        isTold = true;
        this.#onWait(this.#holder());
      }
      // Not in step with the others who wait.
      await new Promise((resolve) => setTimeout(resolve, sleep * (0.5 + Math.random())));
    }
  }

  #take(mode: Mode): boolean {
    this.#fd ??= this.#open();
    if (!this.#files.tryLock(this.#fd, mode)) return false;
    // When the side state was deleted, others lock another file by now.
    if (this.#isCurrent()) return true;
    this.close();
    return false;
  }

  #isCurrent(): boolean {
    try {
      return this.#files.statSync(this.#path).ino === this.#ino;
    } catch (error) {
      if (isSystemError(error, 'ENOENT', 'ENOTDIR')) return false;
      throw error;
    }
  }

  #open(): number {
    const flags = constants.O_RDWR | constants.O_CREAT;
    let fd: number;
    try {
      fd = this.#files.openSync(this.#path, flags, 0o666);
    } catch (error) {
      if (!isSystemError(error, 'ENOENT')) throw error;
      this.#files.mkdirSync(dirname(this.#path));
      fd = this.#files.openSync(this.#path, flags, 0o666);
    }
    this.#ino = this.#files.fstatSync(fd).ino;
    return fd;
  }

  #release(): void {
    if (this.#fd !== undefined) this.#files.unlock(this.#fd);
  }

  /** Best effort: a full disk does not keep anyone from locking. */
  #sign(text: string): void {
    try {
      if (this.#fd === undefined) return;
      this.#files.ftruncateSync(this.#fd, 0);
      if (text !== '') this.#files.writeSync(this.#fd, Buffer.from(text), 0);
    } catch (error) {
      if (!isSystemError(error)) throw error;
    }
  }

  #beat(): NodeJS.Timeout {
    return setInterval(() => {
      this.#showProgress();
    }, HEARTBEAT).unref();
  }

  /** A process that is stopped or stuck does not get here. */
  #showProgress(): void {
    try {
      if (this.#fd !== undefined) this.#files.touchSync(this.#fd, new Date());
    } catch (error) {
      if (!isSystemError(error)) throw error;
    }
  }

  /** Changes whenever a holder does something. */
  #progress(): bigint {
    try {
      return this.#files.statSync(this.#path).mtimeNs;
    } catch (error) {
      if (isSystemError(error)) return 0n;
      throw error;
    }
  }

  #holder(): string {
    let holder = '';
    try {
      holder = this.#files.readFileSync(this.#path).toString().trim();
    } catch (error) {
      if (!isSystemError(error)) throw error;
    }
    return holder === '' ? 'another process' : holder;
  }

  #timeoutError(): LayercacheError {
    return new LayercacheError(
      'LOCK_TIMEOUT',
      `${this.#path} is held by ${this.#holder()}, which has made no progress for more than ${this.#timeout} ms; wait for it or stop it`,
    );
  }
}
