import { createRequire } from 'node:module';
import type * as NativeExtensions from 'fs-native-extensions';
import type { FileSystem } from './file-system.js';

export type KernelLock = Pick<FileSystem, 'tryLock' | 'unlock'>;

/** The parts of koffi that are used: it calls functions of the C library. */
interface Koffi {
  load(library: null): { func(prototype: string): (...args: unknown[]) => number };
  errno(): number;
  readonly os: { readonly errno: Readonly<Record<string, number>> };
}

/** What fcntl(2) and flock(2) are given. */
const Linux = { OFD_GETLK: 36, OFD_SETLK: 37, F_RDLCK: 0, F_WRLCK: 1, F_UNLCK: 2, sizeOfFlock: 32 } as const;
const Bsd = { LOCK_SH: 1, LOCK_EX: 2, LOCK_NB: 4, LOCK_UN: 8 } as const;

const loadModule = createRequire(import.meta.url);
let loaded: KernelLock | undefined;
let probe: ((...args: unknown[]) => number) | undefined;

/**
 * Kernel locks on open files, by the first package that has a binary for this platform. Loaded with the first lock, so
 * that a program that only prints its version needs neither. Both packages take the same lock: on Linux that of the open
 * file description (fcntl(2), F_OFD_SETLK) on all of the file, elsewhere that of flock(2).
 *
 * @throws an error like those of the system, `ENOLCK`, when no package has a binary
 */
export function kernelLock(): KernelLock {
  loaded ??= firstThatLoads([nativeExtensions, callsByKoffi]);
  return loaded;
}

function firstThatLoads(loaders: readonly (() => KernelLock)[]): KernelLock {
  const reasons: unknown[] = [];
  for (const load of loaders) {
    try {
      return load();
    } catch (reason) {
      reasons.push(reason);
    }
  }
  throw systemError('ENOLCK', new AggregateError(reasons, 'no package for kernel locks can be loaded'));
}

function nativeExtensions(): KernelLock {
  const { tryLock, unlock } = loadModule('fs-native-extensions') as typeof NativeExtensions;
  return { tryLock: (fd, mode) => tryLock(fd, 0, 0, { shared: mode === 'shared' }), unlock };
}

/** For platforms that the other package has no binary for, such as Linux with musl. */
export function callsByKoffi(): KernelLock {
  if (process.platform === 'win32') throw new Error('koffi is only used where there is fcntl or flock');
  const koffi = loadModule('koffi') as Koffi;
  const library = koffi.load(null);
  const busy = new Set([koffi.os.errno.EAGAIN, koffi.os.errno.EACCES, koffi.os.errno.EWOULDBLOCK]);
  const call = lockCall(library);
  const lock = (fd: number, mode: 'shared' | 'exclusive' | 'unlock'): boolean => {
    if (call(fd, mode) === 0) return true;
    const errno = koffi.errno();
    if (mode !== 'unlock' && busy.has(errno)) return false;
    const code = Object.entries(koffi.os.errno).find(([, number]) => number === errno)?.[0];
    throw systemError(code ?? `errno ${errno}`);
  };
  return {
    tryLock: lock,
    unlock: (fd) => {
      lock(fd, 'unlock');
    },
  };
}

/**
 * Whether any other open file holds a lock. On Linux an exclusive lock takes the right to write, and asking for it does
 * not: so a file of another user can be asked about.
 */
export function isLocked(fd: number): boolean {
  if (process.platform !== 'linux' && process.platform !== 'android') {
    const lock = kernelLock();
    if (!lock.tryLock(fd, 'exclusive')) return true;
    lock.unlock(fd);
    return false;
  }
  let koffi: Koffi;
  try {
    koffi = loadModule('koffi') as Koffi;
  } catch (reason) {
    throw systemError('ENOLCK', reason);
  }
  probe ??= koffi.load(null).func('int fcntl(int fd, int cmd, ...)');
  const request = Buffer.alloc(Linux.sizeOfFlock);
  request.writeInt16LE(Linux.F_WRLCK, 0);
  if (probe(fd, Linux.OFD_GETLK, 'void *', request) !== 0) throw systemError('ENOLCK');
  return request.readInt16LE(0) !== Linux.F_UNLCK;
}

type LockCall = (fd: number, mode: 'shared' | 'exclusive' | 'unlock') => number;

function lockCall(library: ReturnType<Koffi['load']>): LockCall {
  if (process.platform !== 'linux' && process.platform !== 'android') {
    const flock = library.func('int flock(int fd, int operation)');
    const operations = {
      shared: Bsd.LOCK_SH | Bsd.LOCK_NB,
      exclusive: Bsd.LOCK_EX | Bsd.LOCK_NB,
      unlock: Bsd.LOCK_UN,
    };
    return (fd, mode) => flock(fd, operations[mode]);
  }
  const fcntl = library.func('int fcntl(int fd, int cmd, ...)');
  const types = { shared: Linux.F_RDLCK, exclusive: Linux.F_WRLCK, unlock: Linux.F_UNLCK };
  return (fd, mode) => {
    // A struct flock: its type comes first, and zeros for the rest mean all of the file from its start on.
    const request = Buffer.alloc(Linux.sizeOfFlock);
    request.writeInt16LE(types[mode], 0);
    return fcntl(fd, Linux.OFD_SETLK, 'void *', request);
  };
}

function systemError(code: string, cause?: unknown): NodeJS.ErrnoException {
  return Object.assign(new Error(`${code}: lock`, { cause }), { code, syscall: 'lock' });
}
