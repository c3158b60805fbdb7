import { randomBytes } from 'node:crypto';
import { basename, join } from 'node:path';
import { isSystemError, type FileSystem } from './file-system.js';

/** A file that is being written. It is locked, so that others can tell it from what a dead process left. */
export interface Temp {
  readonly path: string;
  readonly fd: number;
}

/** The beginning of a blob whose download was interrupted. */
export interface PartialFile {
  readonly name: string;
  /** Bytes. */
  readonly size: number;
  readonly usedAt: Date;
}

/** The folder `.layercache/ingest`: what is being written, before it is renamed to where it belongs. */
export class TempFiles {
  readonly #files: FileSystem;
  readonly dir: string;

  constructor(files: FileSystem, layoutDir: string) {
    this.#files = files;
    this.dir = join(layoutDir, '.layercache', 'ingest');
  }

  async create(): Promise<Temp> {
    for (;;) {
      const path = join(this.dir, `${randomBytes(12).toString('hex')}.tmp`);
      const fd = await this.#openNew(path);
      let held = false;
      try {
        // Someone who sweeps may have had the file between its creation and its lock.
        held = this.#files.tryLock(fd, 'exclusive') && (await this.#isThere(path));
        if (held) return { path, fd };
      } finally {
        if (!held) await this.#files.close(fd);
      }
    }
  }

  async discard(temp: Temp): Promise<void> {
    await this.#files.unlink(temp.path).catch(() => undefined);
    await this.#files.close(temp.fd);
  }

  /** Removes what dead writers left behind. Partial downloads stay. Returns how many files went. */
  sweep(): number {
    let count = 0;
    for (const name of this.names()) {
      if (!name.endsWith('.tmp')) continue;
      const removed = this.#unlessLocked(name, (path) => {
        this.#files.unlinkSync(path);
      });
      if (removed) count++;
    }
    return count;
  }

  #unlessLocked(name: string, run: (path: string, fd: number) => void): boolean {
    const path = join(this.dir, name);
    try {
      const fd = this.#files.openSync(path, 'r+');
      try {
        if (!this.#files.tryLock(fd, 'exclusive')) return false;
        run(path, fd);
        return true;
      } finally {
        this.#files.closeSync(fd);
      }
    } catch (error) {
      if (isSystemError(error, 'ENOENT')) return false;
      throw error;
    }
  }

  /** Partial downloads that nobody goes on with. */
  partials(): PartialFile[] {
    const found: PartialFile[] = [];
    for (const name of this.names()) {
      if (!name.endsWith('.partial')) continue;
      this.#unlessLocked(name, (_path, fd) => {
        const { size, mtimeNs } = this.#files.fstatSync(fd);
        found.push({ name, size: Number(size), usedAt: new Date(Number(mtimeNs / 1_000_000n)) });
      });
    }
    return found;
  }

  /** False when someone goes on with it, or it is gone. */
  removePartial(name: string): boolean {
    return this.#unlessLocked(basename(name), (path) => {
      this.#files.unlinkSync(path);
    });
  }

  /** Everything in the folder. */
  names(): string[] {
    try {
      return this.#files.readdirSync(this.dir);
    } catch (error) {
      if (isSystemError(error, 'ENOENT')) return [];
      throw error;
    }
  }

  async #openNew(path: string): Promise<number> {
    try {
      return await this.#files.open(path, 'wx+', 0o666);
    } catch (error) {
      if (!isSystemError(error, 'ENOENT')) throw error;
      await this.#files.mkdir(this.dir);
      return this.#files.open(path, 'wx+', 0o666);
    }
  }

  async #isThere(path: string): Promise<boolean> {
    try {
      await this.#files.stat(path);
      return true;
    } catch (error) {
      if (isSystemError(error, 'ENOENT')) return false;
      throw error;
    }
  }
}
