import { Digester, LayercacheError, digestAlgorithm, type Digest } from '@layercache/oci';
import { delay } from './abort.js';
import { BlobFile } from './blob-file.js';
import { checkBytes, type Blobs, type WrittenBlob } from './blobs.js';
import { isSystemError, storageError, type FileSystem } from './file-system.js';
import type { Space } from './space/space.js';
import type { Temp, TempFiles } from './temp-files.js';

const READ_SIZE = 256 * 1024;
/** How often to look whether another process has decided about the file, in ms. */
const POLL = 5;

export interface StagedContext {
  readonly files: FileSystem;
  readonly temps: TempFiles;
  readonly blobs: Blobs;
  /** Where room is limited. */
  readonly space: Space | undefined;
}

export interface StageOptions {
  /** Bytes that will come, where known: room is made for all of them before the first is asked for. */
  readonly length?: number | undefined;
  readonly signal?: AbortSignal | undefined;
}

/**
 * Bytes on their way to a blob whose digest is named after the last of them. They are in a file
 * `.layercache/ingest/<random>.upload`, come out of the space of the layout, and become the blob without being copied.
 *
 * The file has an exclusive lock while bytes arrive, and a shared one while it is idle, when whoever needs the room may
 * remove it. Without a lock it belongs to a dead process.
 */
export class StagedBlob {
  readonly #context: StagedContext;
  readonly #digester = new Digester();
  #temp: Temp | undefined;
  /** Of all bytes. Nothing can be appended once it is known. */
  #found: Digest | undefined;
  /** The file does not hold what was hashed: a write failed. */
  #broken = false;

  private constructor(context: StagedContext, temp: Temp) {
    this.#context = context;
    this.#temp = temp;
  }

  /** @throws LayercacheError `STORAGE` */
  static async create(context: StagedContext): Promise<StagedBlob> {
    try {
      const temp = await context.temps.create({ kind: 'upload' });
      context.files.tryLock(temp.fd, 'shared');
      return new StagedBlob(context, temp);
    } catch (error) {
      throw storageError(error, 'begin an upload');
    }
  }

  /** Bytes that are here. */
  get size(): number {
    return this.#digester.size;
  }

  /**
   * Appends bytes as they come. When `source` fails, the bytes before that stay.
   *
   * @throws LayercacheError `NOT_FOUND` when it was given up to make room; `CACHE_FULL`, `STORAGE`
   */
  async append(source: AsyncIterable<Uint8Array>, options: StageOptions = {}): Promise<void> {
    const { length, signal } = options;
    const { files, space } = this.#context;
    await this.#exclusively(async ({ fd }) => {
      if (this.#found !== undefined) throw gone();
      const written = this.size;
      const end = length === undefined ? undefined : written + length;
      const room = await space?.reserve(end, { signal, written });
      try {
        const file = new BlobFile(files, fd, this.#digester, end, room);
        try {
          for await (const chunk of source) await this.#orBreak(() => file.append(chunk));
        } finally {
          await this.#orBreak(() => file.flush());
        }
      } finally {
        await room?.release();
      }
    });
  }

  /** Everything from the first byte. */
  async *read(): AsyncGenerator<Uint8Array> {
    const { files } = this.#context;
    for (let position = 0; position < this.size;) {
      if (this.#temp === undefined) throw gone();
      const buffer = Buffer.allocUnsafeSlow(Math.min(READ_SIZE, this.size - position));
      const count = await files.read(this.#temp.fd, buffer, position);
      if (count === 0) throw gone();
      position += count;
      yield buffer.subarray(0, count);
    }
  }

  /**
   * Makes the bytes a blob, without an entry.
   *
   * @throws LayercacheError `DIGEST_MISMATCH` when they are not those wanted, `NOT_FOUND`, `STORAGE`
   */
  async commit(want: { readonly digest: Digest; readonly size: number }): Promise<WrittenBlob> {
    return this.#exclusively(async ({ path, fd }) => {
      const { digest, size } = want;
      checkBytes(await this.#hashed(digest), want);
      await this.#context.blobs.publish(path, fd, digest, size);
      this.#temp = undefined;
      return { digest, size };
    });
  }

  /** Frees what the bytes take. */
  async discard(): Promise<void> {
    const temp = this.#temp;
    this.#temp = undefined;
    if (temp !== undefined) await this.#context.temps.discard(temp);
  }

  async #hashed(digest: Digest): Promise<{ readonly size: number; digest(): Digest }> {
    const algorithm = digestAlgorithm(digest);
    if (algorithm === this.#digester.algorithm) {
      const found = (this.#found ??= this.#digester.digest());
      return { size: this.size, digest: () => found };
    }
    const digester = new Digester(algorithm);
    for await (const chunk of this.read()) digester.update(chunk);
    return digester;
  }

  /** Keeps others from removing the file while `work` changes it. */
  async #exclusively<T>(work: (temp: Temp) => Promise<T>): Promise<T> {
    const temp = this.#temp;
    if (temp === undefined || this.#broken) throw gone();
    try {
      if (!(await this.#take(temp))) throw gone();
      try {
        return await work(temp);
      } finally {
        if (this.#temp === temp) this.#context.files.tryLock(temp.fd, 'shared');
      }
    } catch (error) {
      throw storageError(error, 'store an upload');
    }
  }

  /** False when the file was removed. */
  async #take({ path, fd }: Temp): Promise<boolean> {
    const { files } = this.#context;
    try {
      const { ino } = files.fstatSync(fd);
      while ((await files.stat(path)).ino === ino) {
        // Another process has the lock while it decides whether to remove the file.
        if (files.tryLock(fd, 'exclusive')) return (await files.stat(path)).ino === ino;
        await delay(POLL, undefined);
      }
      return false;
    } catch (error) {
      if (isSystemError(error, 'ENOENT')) return false;
      throw error;
    }
  }

  async #orBreak(write: () => Promise<void>): Promise<void> {
    try {
      await write();
    } catch (error) {
      this.#broken = true;
      throw error;
    }
  }
}

function gone(): LayercacheError {
  return new LayercacheError('NOT_FOUND', 'the upload was given up to make room: begin it again');
}
