import type { FileSystem } from '../file-system.js';
import type { Space } from './space.js';

/**
 * A disk on which every byte that a file gains is taken from a {@link Space} before it is written, and every byte
 * that a file loses goes back after. What nobody made room for fails, as on a disk that is full.
 */
export function limitedFiles(files: FileSystem, space: Space): FileSystem {
  const growth = (fd: number, end: number): number => Math.max(0, end - Number(files.fstatSync(fd).size));
  return {
    ...files,
    appendSync: (fd, bytes) => {
      space.draw(fd, bytes.byteLength);
      let count = 0;
      try {
        count = files.appendSync(fd, bytes);
        return count;
      } finally {
        space.refund(fd, bytes.byteLength - count);
      }
    },
    writeSync: (fd, bytes, position) => {
      const more = growth(fd, position + bytes.byteLength);
      space.draw(fd, more);
      let count = 0;
      try {
        count = files.writeSync(fd, bytes, position);
        return count;
      } finally {
        space.refund(fd, Math.min(more, bytes.byteLength - count));
      }
    },
    write: async (fd, bytes, position) => {
      const more = growth(fd, position + bytes.byteLength);
      space.draw(fd, more);
      let count = 0;
      try {
        count = await files.write(fd, bytes, position);
        return count;
      } finally {
        space.refund(fd, Math.min(more, bytes.byteLength - count));
      }
    },
    ftruncateSync: (fd, length) => {
      const size = Number(files.fstatSync(fd).size);
      space.draw(fd, length - size);
      files.ftruncateSync(fd, length);
      space.refund(fd, size - length);
    },
    unlinkSync: (path) => {
      const { size } = files.statSync(path);
      files.unlinkSync(path);
      space.refund(undefined, Number(size));
    },
    unlink: (path) => space.replacing(path, () => files.unlink(path)),
    rename: (from, to) => space.replacing(to, () => files.rename(from, to)),
    close: async (fd) => {
      space.forget(fd);
      await files.close(fd);
    },
    closeSync: (fd) => {
      space.forget(fd);
      files.closeSync(fd);
    },
  };
}
