import fs from 'node:fs';
import { promisify } from 'node:util';
import { LayercacheError, isLayercacheError } from '@layercache/oci';
import { isLocked, kernelLock } from './kernel-lock.js';

/** What is thrown where bytes were to be written that no limit left room for. */
export class SpaceExhausted extends Error {
  readonly code = 'EDQUOT';
  readonly syscall = 'write';
}

/** What the layout wants to know about a file. */
export interface FileFacts {
  /** The disk it is on. */
  readonly dev: bigint;
  readonly ino: bigint;
  /** Bytes. */
  readonly size: bigint;
  readonly mtimeNs: bigint;
  isDirectory(): boolean;
}

/**
 * Every operation on the disk, and no other way to it: so that a test can fail or stop at any of them.
 * The blocking ones serve the small files of the side state, where a round through the thread pool costs more
 * than the operation; the others serve blobs and commits.
 */
export interface FileSystem {
  openSync(path: string, flags: string | number, mode?: number): number;
  closeSync(fd: number): void;
  readSync(fd: number, buffer: Uint8Array, offset: number, length: number, position: number): number;
  /** Writes at the end of a file opened for appending. Returns how many bytes were written. */
  appendSync(fd: number, bytes: Uint8Array): number;
  statSync(path: string): FileFacts;
  fstatSync(fd: number): FileFacts;
  ftruncateSync(fd: number, length: number): void;
  writeSync(fd: number, bytes: Uint8Array, position: number): number;
  touchSync(fd: number, when: Date): void;
  readFileSync(path: string): Buffer;
  /** The path without symbolic links. */
  realpathSync(path: string): string;
  readdirSync(path: string): string[];
  unlinkSync(path: string): void;
  mkdirSync(path: string): void;
  /** A kernel lock on the file. False when another open file holds one that excludes it. */
  tryLock(fd: number, mode: 'shared' | 'exclusive'): boolean;
  unlock(fd: number): void;
  /** Whether another open file holds any lock. Does not need the right to write. */
  isLocked(fd: number): boolean;
  /** Bytes that one who is not root can still write on the disk of a path. */
  freeSpaceSync(path: string): number;

  mkdir(path: string): Promise<void>;
  open(path: string, flags: string | number, mode?: number): Promise<number>;
  read(fd: number, buffer: Uint8Array, position: number): Promise<number>;
  write(fd: number, bytes: Uint8Array, position: number): Promise<number>;
  fsync(fd: number): Promise<void>;
  fdatasync(fd: number): Promise<void>;
  close(fd: number): Promise<void>;
  rename(from: string, to: string): Promise<void>;
  unlink(path: string): Promise<void>;
  stat(path: string): Promise<FileFacts>;
  touch(fd: number, when: Date): Promise<void>;
  readdir(path: string): Promise<string[]>;
}

const open = promisify(fs.open);
const read = promisify(fs.read);
const write = promisify(fs.write);
const bigint = { bigint: true } as const;

/** The disk itself. */
export const nodeFileSystem: FileSystem = {
  openSync: (path, flags, mode) => fs.openSync(path, flags, mode),
  closeSync: (fd) => {
    fs.closeSync(fd);
  },
  readSync: (fd, buffer, offset, length, position) => fs.readSync(fd, buffer, offset, length, position),
  appendSync: (fd, bytes) => fs.writeSync(fd, bytes),
  writeSync: (fd, bytes, position) => fs.writeSync(fd, bytes, 0, bytes.byteLength, position),
  touchSync: (fd, when) => {
    fs.futimesSync(fd, when, when);
  },
  statSync: (path) => fs.statSync(path, bigint),
  fstatSync: (fd) => fs.fstatSync(fd, bigint),
  ftruncateSync: (fd, length) => {
    fs.ftruncateSync(fd, length);
  },
  readFileSync: (path) => fs.readFileSync(path),
  realpathSync: (path) => fs.realpathSync(path),
  readdirSync: (path) => fs.readdirSync(path),
  mkdirSync: (path) => {
    fs.mkdirSync(path, { recursive: true });
  },
  unlinkSync: (path) => {
    fs.unlinkSync(path);
  },
  tryLock: (fd, mode) => kernelLock().tryLock(fd, mode),
  unlock: (fd) => {
    kernelLock().unlock(fd);
  },
  isLocked,
  freeSpaceSync: (path) => {
    const { bavail, bsize } = fs.statfsSync(path);
    return bavail * bsize;
  },

  mkdir: async (path) => {
    await fs.promises.mkdir(path, { recursive: true });
  },
  open: (path, flags, mode) => open(path, flags, mode),
  read: async (fd, buffer, position) => (await read(fd, buffer, 0, buffer.byteLength, position)).bytesRead,
  write: async (fd, bytes, position) => (await write(fd, bytes, 0, bytes.byteLength, position)).bytesWritten,
  fsync: promisify(fs.fsync),
  fdatasync: promisify(fs.fdatasync),
  close: promisify(fs.close),
  rename: fs.promises.rename,
  unlink: fs.promises.unlink,
  stat: (path) => fs.promises.stat(path, bigint),
  touch: (fd, when) => promisify(fs.futimes)(fd, when, when),
  readdir: (path) => fs.promises.readdir(path),
};

export function isSystemError(error: unknown, ...codes: string[]): error is NodeJS.ErrnoException {
  return (
    error instanceof Error &&
    typeof (error as NodeJS.ErrnoException).code === 'string' &&
    (error as NodeJS.ErrnoException).syscall !== undefined &&
    (codes.length === 0 || codes.includes((error as NodeJS.ErrnoException).code ?? ''))
  );
}

const ADVICE: Readonly<Record<string, string>> = {
  ENOSPC: 'the disk is full; free some space and try again',
  EDQUOT: 'the disk quota is used up; free some space and try again',
  EROFS: 'the file system is read-only; choose another cache folder',
  EACCES: 'no permission; check the owner and mode of the folder',
  EPERM: 'not permitted; check the owner and mode of the folder',
  EMFILE: 'too many open files; raise the limit (ulimit -n)',
  ENOLCK:
    'no lock can be taken: neither fs-native-extensions nor koffi has a binary for this platform, or the file system has no locks; what is here can be read',
  EIO: 'the disk reports an I/O error',
};

/** An error of the system as a `STORAGE` error that says what was being done. Others pass unchanged. */
export function storageError(error: unknown, doing: string): unknown {
  if (error instanceof LayercacheError || !isSystemError(error)) return error;
  const code = error.code ?? '';
  if (error instanceof SpaceExhausted) {
    return new LayercacheError('CACHE_FULL', `cannot ${doing}: ${error.message}; prune, or raise the limit`, {
      cause: error,
    });
  }
  return new LayercacheError('STORAGE', `cannot ${doing}: ${ADVICE[code] ?? error.message} (${code})`, {
    cause: error,
  });
}

/** Does something on the disk, so that an error of the system is a `STORAGE` error that says what was being done. */
export function onDisk<T>(doing: string, run: () => T): T {
  try {
    return run();
  } catch (error) {
    throw storageError(error, doing);
  }
}

/** Whether an error says that the disk takes nothing: it is full, read-only or another user's, or gives no lock. */
export function cannotWrite(error: unknown): boolean {
  const cause = error instanceof Error && isSystemError(error.cause) ? error.cause : error;
  return isSystemError(cause, 'EROFS', 'EACCES', 'EPERM', 'ENOSPC', 'EDQUOT', 'ENOLCK');
}

/** Whether an error says that nothing can be stored here. What can be made again is then used without being kept. */
export function cannotStore(error: unknown): boolean {
  return cannotWrite(error) || isLayercacheError(error, 'CACHE_FULL');
}

/** Writes all of it: a short write is not an error of the system, but the bytes must not be lost. */
export async function writeFully(
  files: FileSystem,
  fd: number,
  bytes: Uint8Array,
  position: number,
): Promise<void> {
  for (let done = 0; done < bytes.byteLength;) {
    const count = await files.write(fd, bytes.subarray(done), position + done);
    if (count === 0)
      throw Object.assign(new Error('ENOSPC: nothing was written, write'), {
        code: 'ENOSPC',
        syscall: 'write',
      });
    done += count;
  }
}

/** Makes renames and new names in a folder survive power loss. */
export async function syncFolder(files: FileSystem, path: string): Promise<void> {
  const fd = await files.open(path, 'r');
  try {
    await files.fsync(fd);
  } finally {
    await files.close(fd);
  }
}
