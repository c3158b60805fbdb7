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

/** How the name of a file begins that is written beside its place, because that is on another disk. */
const BESIDE = '.layercache-';

export function isTempName(name: string): boolean {
  return name.startsWith(BESIDE) && name.endsWith('.tmp');
}

/** The folder `.layercache/ingest`: what is being written, before it is renamed to where it belongs. */
export class TempFiles {
  readonly #files: FileSystem;
  readonly dir: string;
  readonly #layoutDir: string;

  constructor(files: FileSystem, layoutDir: string) {
    this.#files = files;
    this.#layoutDir = layoutDir;
    this.dir = join(layoutDir, '.layercache', 'ingest');
  }

  /**
   * @param options.target the folder into which the file will be renamed, which may be on another disk
   * @param options.kind `upload`: bytes whose digest is named after the last of them
   */
  async create(
    options: { readonly target?: string | undefined; readonly kind?: 'tmp' | 'upload' } = {},
  ): Promise<Temp> {
    const { target, kind = 'tmp' } = options;
    const isElsewhere = target !== undefined && this.#isOnAnotherDisk(target);
    const place = isElsewhere ? join(target, BESIDE) : join(this.dir, '/');
    for (;;) {
      const path = `${place}${randomBytes(12).toString('hex')}.${kind}`;
      const fd = await this.#openNew(path);
      let held = false;
      try {
        // Someone who sweeps may have had the file between its creation and its lock.
        held = this.#files.tryLock(fd, 'exclusive') && (await this.#isThere(path));
        if (held) return { path, fd };
      } finally {
        if (!held) await this.discard({ path, fd });
      }
    }
  }

  async discard(temp: Temp): Promise<void> {
    await this.#files.unlink(temp.path).catch(() => undefined);
    await this.#files.close(temp.fd);
  }

  #isOnAnotherDisk(folder: string): boolean {
    try {
      this.#files.mkdirSync(this.dir);
      return this.#files.statSync(folder).dev !== this.#files.statSync(this.dir).dev;
    } catch (error) {
      if (isSystemError(error)) return false;
      throw error;
    }
  }

  /** Removes what dead writers left behind. Partial downloads stay. Returns how many files went. */
  sweep(): number {
    let count = 0;
    const remove = (path: string): void => {
      this.#files.unlinkSync(path);
    };
    for (const name of this.names())
      if (/\.(?:tmp|upload)$/.test(name) && this.#unlessLocked(join(this.dir, name), remove)) count++;
    const others = ['.', 'blobs/sha256', 'blobs/sha512'].map((name) => join(this.#layoutDir, name));
    for (const folder of others.filter((one) => this.#isOnAnotherDisk(one))) {
      for (const name of this.#list(folder)) {
        if (isTempName(name) && this.#unlessLocked(join(folder, name), remove)) count++;
      }
    }
    return count;
  }

  /**
   * Removes the upload that has been idle for longest. Its owner holds a shared lock while it is idle, and an
   * exclusive one while bytes arrive.
   *
   * @param idle ms that it must have been idle for
   * @returns whether there was one
   */
  removeIdleUpload(idle: number): boolean {
    const uploads: { readonly name: string; readonly usedAt: number }[] = [];
    for (const name of this.names()) {
      if (!name.endsWith('.upload')) continue;
      this.#unlessLocked(
        join(this.dir, name),
        (_path, fd) => uploads.push({ name, usedAt: Number(this.#files.fstatSync(fd).mtimeNs / 1_000_000n) }),
        'shared',
      );
    }
    uploads.sort((a, b) => a.usedAt - b.usedAt);
    for (const { name, usedAt } of uploads) {
      if (Date.now() - usedAt < idle) return false;
      const removed = this.#unlessLocked(
        join(this.dir, name),
        (path) => {
          this.#files.unlinkSync(path);
        },
        'shared',
      );
      if (removed) return true;
    }
    return false;
  }

  #unlessLocked(
    path: string,
    run: (path: string, fd: number) => void,
    mode: 'shared' | 'exclusive' = 'exclusive',
  ): boolean {
    try {
      const fd = this.#files.openSync(path, 'r+');
      try {
        if (!this.#files.tryLock(fd, mode)) return false;
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
      this.#unlessLocked(join(this.dir, name), (_path, fd) => {
        const { size, mtimeNs } = this.#files.fstatSync(fd);
        found.push({ name, size: Number(size), usedAt: new Date(Number(mtimeNs / 1_000_000n)) });
      });
    }
    return found;
  }

  /** False when someone goes on with it, or it is gone. */
  removePartial(name: string): boolean {
    return this.#unlessLocked(join(this.dir, basename(name)), (path) => {
      this.#files.unlinkSync(path);
    });
  }

  /** Everything in the folder. */
  names(): string[] {
    return this.#list(this.dir);
  }

  #list(folder: string): string[] {
    try {
      return this.#files.readdirSync(folder);
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
