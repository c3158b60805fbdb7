import type { Digest } from '@layercache/oci';
import { isSystemError, type FileSystem } from './file-system.js';

/** Open files are scarce: the usual limit of a process is 1,024. */
const MAX_PINS = 256;
/** How long a blob is pinned at most, in ms. A writer that has not put its entry by then has given up. */
const MAX_AGE = 3_600_000;

interface Pin {
  readonly fd: number;
  /** ms since 1970 */
  readonly since: number;
}

/**
 * Blobs that were written and have no entry yet. Each is held open with a shared kernel lock, so that a removal
 * in this or another process leaves the file alone until the entry is there; a dead process pins nothing.
 */
export class Pins {
  readonly #files: FileSystem;
  /** The oldest first. */
  readonly #held = new Map<Digest, Pin>();
  #timer: NodeJS.Timeout | undefined;

  constructor(files: FileSystem) {
    this.#files = files;
  }

  /** Takes over the open file of a blob, on which a lock is held. */
  hold(digest: Digest, fd: number): void {
    this.release(digest);
    if (this.#held.size >= MAX_PINS) {
      for (const oldest of this.#held.keys()) {
        this.release(oldest);
        break;
      }
    }
    this.#held.set(digest, { fd, since: Date.now() });
    this.#timer ??= this.#expireLater();
  }

  /** Lets go of a blob if this is the file that is held. */
  releaseFile(digest: Digest, ino: bigint): void {
    const pin = this.#held.get(digest);
    if (pin !== undefined && this.#files.fstatSync(pin.fd).ino === ino) this.release(digest);
  }

  release(digest: Digest): void {
    const pin = this.#held.get(digest);
    if (pin === undefined) return;
    this.#held.delete(digest);
    try {
      this.#files.closeSync(pin.fd);
    } catch (error) {
      // The bytes were synced long ago, and close(2) lets go of the file also when it fails.
      if (!isSystemError(error)) throw error;
    }
  }

  /** Releases a blob whose file was neither written nor pinned for so long. @param idle ms */
  releaseIdle(digest: Digest, idle: number): void {
    const pin = this.#held.get(digest);
    if (pin === undefined) return;
    const usedAt = Number(this.#files.fstatSync(pin.fd).mtimeNs / 1_000_000n);
    if (Date.now() - usedAt >= idle) this.release(digest);
  }

  releaseAll(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    for (const digest of [...this.#held.keys()]) this.release(digest);
  }

  #expireLater(): NodeJS.Timeout {
    return setTimeout(() => {
      this.#timer = undefined;
      for (const [digest, { since }] of this.#held) if (Date.now() - since >= MAX_AGE) this.release(digest);
      if (this.#held.size > 0) this.#timer = this.#expireLater();
    }, MAX_AGE).unref();
  }
}
