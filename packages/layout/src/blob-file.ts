import type { Digester } from '@layercache/oci';
import { writeFully, type FileSystem } from './file-system.js';
import type { Room } from './space/space.js';

/** Bytes gathered before they are written: an operation costs far more than the bytes of a network chunk. */
const BATCH = 512 * 1024;
const SMALLEST_BATCH = 64 * 1024;
/** Bytes after which the disk is set to work, so that little is left to wait for at the end. */
const SYNC_EVERY = 32 * 1024 * 1024;

/**
 * A file of a blob that grows at its end. Chunks are hashed as they come, copied, and written in batches: one
 * is on its way to the disk while the next is gathered.
 */
export class BlobFile {
  readonly #files: FileSystem;
  readonly #fd: number;
  readonly #digester: Digester;
  readonly #batch: number;
  readonly #room: Room | undefined;
  #gathering: Buffer;
  #gathered = 0;
  #spare: Buffer | undefined;
  /** Where the next batch goes. */
  #position: number;
  #writing: Promise<void> = Promise.resolve();
  #synced: number;
  #syncing: Promise<void> | undefined;

  /**
   * @param digester has hashed what the file holds already
   * @param size bytes of the complete blob, where known
   * @param room what the bytes come out of, where room is limited
   */
  constructor(files: FileSystem, fd: number, digester: Digester, size = Infinity, room?: Room) {
    this.#files = files;
    this.#fd = fd;
    this.#digester = digester;
    this.#room = room;
    room?.cover(fd);
    this.#position = digester.size;
    this.#synced = digester.size;
    this.#batch = Math.min(BATCH, Math.max(size - digester.size, SMALLEST_BATCH));
    this.#gathering = Buffer.allocUnsafeSlow(this.#batch);
  }

  async append(chunk: Uint8Array): Promise<void> {
    this.#digester.update(chunk);
    for (let taken = 0; taken < chunk.byteLength;) {
      const part = chunk.subarray(taken, taken + this.#batch - this.#gathered);
      this.#gathering.set(part, this.#gathered);
      this.#gathered += part.byteLength;
      taken += part.byteLength;
      if (this.#gathered === this.#batch) await this.#startBatch();
    }
  }

  /** Resolves when all that was appended is in the file, and nothing uses the file any more. */
  async flush(): Promise<void> {
    try {
      await this.#startBatch();
      await this.#writing;
    } finally {
      await this.#syncing;
    }
  }

  /** Waits for the batch before, so that the file never has a gap. */
  async #startBatch(): Promise<void> {
    await this.#writing;
    if (this.#gathered === 0) return;
    await this.#room?.ensure(this.#position + this.#gathered);
    const batch = this.#gathering;
    this.#writing = writeFully(this.#files, this.#fd, batch.subarray(0, this.#gathered), this.#position);
    // Whoever appends or flushes next hears of it.
    this.#writing.catch(() => undefined);
    this.#position += this.#gathered;
    this.#gathered = 0;
    this.#gathering = this.#spare ?? Buffer.allocUnsafeSlow(this.#batch);
    this.#spare = batch;
    this.#startSync();
  }

  /** Only a head start: whoever publishes the file syncs it, and hears of what fails. */
  #startSync(): void {
    if (this.#syncing !== undefined || this.#position - this.#synced < SYNC_EVERY) return;
    this.#synced = this.#position;
    const done = (): void => {
      this.#syncing = undefined;
    };
    this.#syncing = this.#files.fdatasync(this.#fd).then(done, done);
  }
}
