import { join } from 'node:path';
import { isSystemError, nodeFileSystem, storageError, writeFully, type FileSystem } from './file-system.js';
import { LayoutLock } from './lock.js';
import { TempFiles } from './temp-files.js';

export type WithRoom = (bytes: number, write: () => Promise<void>) => Promise<void>;

export interface SideFolderOptions {
  /** Bytes of a file. A larger one was not written by us, and counts as absent. Default 1 MiB. */
  readonly maxSize?: number;
  /** How long to wait for others who change files of the folder, in ms. Default: 10,000. */
  readonly lockTimeout?: number;
  /** The disk. Default: the real one. */
  readonly files?: FileSystem;
  /** Writes as many bytes once there is room for them, where room is limited. */
  readonly withRoom?: WithRoom | undefined;
}

const NAME = /^[a-z0-9-]{1,64}$/;

/**
 * A folder `.layercache/<name>` of small files that several processes change. A change sees what the one before it
 * wrote: it holds a kernel lock of the folder, and replaces its file whole. Side state: a reader must be able to do
 * without it, so what cannot be read is absent, and nothing is synced to the disk.
 */
export class SideFolder {
  readonly #files: FileSystem;
  readonly #dir: string;
  readonly #temps: TempFiles;
  readonly #lock: LayoutLock;
  readonly #maxSize: number;
  readonly #withRoom: WithRoom;

  /** @param name letters, digits and dashes */
  constructor(layoutDir: string, name: string, options: SideFolderOptions = {}) {
    this.#files = options.files ?? nodeFileSystem;
    this.#dir = join(layoutDir, '.layercache', checkedName(name));
    this.#temps = new TempFiles(this.#files, layoutDir);
    this.#maxSize = options.maxSize ?? 1024 * 1024;
    this.#withRoom = options.withRoom ?? ((_bytes, write) => write());
    this.#lock = new LayoutLock(this.#files, join(this.#dir, '.lock'), options.lockTimeout ?? 10_000);
  }

  /** Undefined when there is no such file, or none that can be read. Blocks for one small read. */
  read(name: string): Uint8Array | undefined {
    const path = join(this.#dir, checkedName(name));
    try {
      if (this.#files.statSync(path).size > this.#maxSize) return undefined;
      return this.#files.readFileSync(path);
    } catch (error) {
      if (isSystemError(error)) return undefined;
      throw error;
    }
  }

  /**
   * Replaces a file by what `change` makes of it; leaves it when that is undefined.
   *
   * @throws LayercacheError `STORAGE`, `LOCK_TIMEOUT`
   */
  async update(
    name: string,
    change: (before: Uint8Array | undefined) => Uint8Array | undefined,
  ): Promise<void> {
    const path = join(this.#dir, checkedName(name));
    try {
      await this.#lock.exclusive(`changing ${name}`, async () => {
        const bytes = change(this.read(name));
        if (bytes !== undefined) await this.#withRoom(bytes.byteLength, () => this.#replace(path, bytes));
      });
    } catch (error) {
      throw storageError(error, `write ${path}`);
    }
  }

  close(): void {
    this.#lock.close();
  }

  async #replace(path: string, bytes: Uint8Array): Promise<void> {
    const temp = await this.#temps.create();
    try {
      await writeFully(this.#files, temp.fd, bytes, 0);
      await this.#files.rename(temp.path, path);
    } finally {
      await this.#temps.discard(temp);
    }
  }
}

function checkedName(name: string): string {
  if (NAME.test(name)) return name;
  throw new TypeError(`${JSON.stringify(name)} is no name for a file of the side state`);
}
