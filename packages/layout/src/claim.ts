import { isSystemError, type FileFacts, type FileSystem } from './file-system.js';

/** A blob that is about to go. */
export interface Claim {
  /** When it was last used; undefined when there is no file. */
  readonly usedAt: Date | undefined;
  /** Of the file that is claimed; undefined when there is none. */
  readonly ino: bigint | undefined;
  /** False when there is nothing to unlink. */
  unlink(): Promise<boolean>;
  release(): void;
}

const noFile: Claim = {
  usedAt: undefined,
  ino: undefined,
  unlink: () => Promise.resolve(false),
  release: () => undefined,
};

/** Undefined when a writer pins the blob. */
export function claimFile(files: FileSystem, path: string): Claim | undefined {
  let fd: number;
  let isOurs = true;
  try {
    fd = files.openSync(path, 'r+');
  } catch (error) {
    if (isSystemError(error, 'ENOENT', 'ENOTDIR')) return noFile;
    if (!isSystemError(error, 'EACCES', 'EPERM')) throw error;
    // Another user's: who may write the folder may remove it, and cannot lock it. So its lock is asked about instead.
    fd = files.openSync(path, 'r');
    isOurs = false;
  }
  let isFree = false;
  try {
    isFree = isOurs ? files.tryLock(fd, 'exclusive') : !files.isLocked(fd);
  } finally {
    if (!isFree) files.closeSync(fd);
  }
  if (!isFree) return undefined;
  let facts: FileFacts;
  try {
    facts = files.fstatSync(fd);
  } catch (error) {
    files.closeSync(fd);
    throw error;
  }
  return {
    usedAt: new Date(Number(facts.mtimeNs / 1_000_000n)),
    ino: facts.ino,
    unlink: async () => {
      // Whoever wrote it anew in the meantime wants it.
      try {
        if (files.statSync(path).ino !== facts.ino) return false;
        if (!isOurs && files.isLocked(fd)) return false;
        await files.unlink(path);
        return true;
      } catch (error) {
        if (isSystemError(error, 'ENOENT')) return false;
        throw error;
      }
    },
    release: () => {
      files.closeSync(fd);
    },
  };
}
