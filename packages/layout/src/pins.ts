import type { Digest } from '@layercache/oci';
import { isSystemError, type FileSystem } from './file-system.js';

/** Open files are scarce: the usual limit of a process is 1,024. */
const MAX_PINS = 256;

/**
 * Blobs that were written and have no entry yet. Each is held open with a shared kernel lock, so that a removal
 * in this or another process leaves the file alone until the entry is there; a dead process pins nothing.
 */
export class Pins {
  readonly #files: FileSystem;
  readonly #held = new Map<Digest, number>();

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
    this.#held.set(digest, fd);
  }

  /** Lets go of a blob if this is the file that is held. */
  releaseFile(digest: Digest, ino: bigint): void {
    const fd = this.#held.get(digest);
    if (fd !== undefined && this.#files.fstatSync(fd).ino === ino) this.release(digest);
  }

  release(digest: Digest): void {
    const fd = this.#held.get(digest);
    if (fd === undefined) return;
    this.#held.delete(digest);
    try {
      this.#files.closeSync(fd);
    } catch (error) {
      // The bytes were synced long ago, and close(2) lets go of the file also when it fails.
      if (!isSystemError(error)) throw error;
    }
  }

  releaseAll(): void {
    for (const digest of [...this.#held.keys()]) this.release(digest);
  }
}
