import { join } from 'node:path';
import { isSystemError, type FileSystem } from '../file-system.js';

/** Bytes of all files below a folder: what they hold, not the blocks they take. */
export function folderSize(files: FileSystem, dir: string): number {
  let total = 0;
  for (const name of names(files, dir)) {
    const path = join(dir, name);
    try {
      const facts = files.statSync(path);
      total += facts.isDirectory() ? folderSize(files, path) : Number(facts.size);
    } catch (error) {
      if (!isSystemError(error, 'ENOENT')) throw error;
    }
  }
  return total;
}

function names(files: FileSystem, dir: string): string[] {
  try {
    return files.readdirSync(dir);
  } catch (error) {
    if (isSystemError(error, 'ENOENT', 'ENOTDIR')) return [];
    throw error;
  }
}
