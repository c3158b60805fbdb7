import { nodeFileSystem, type FileSystem } from '../../src/index.js';
import { folderSize } from '../../src/space/folder-size.js';

type Operation = (...args: unknown[]) => unknown;

const CHANGES = /^(write|append|ftruncate|rename|unlink|open)/;

/** A disk that adds up all files below a folder after each operation that can change them. */
export class CountingDisk {
  readonly files: FileSystem;
  /** Most bytes that were there at any instant. */
  most = 0;
  operations = 0;

  constructor(dir: string) {
    const count = (): void => {
      this.operations++;
      this.most = Math.max(this.most, folderSize(nodeFileSystem, dir));
    };
    const wrapped: Record<string, unknown> = {};
    for (const [name, real] of Object.entries(nodeFileSystem) as [string, Operation][]) {
      if (!CHANGES.test(name)) {
        wrapped[name] = real;
        continue;
      }
      wrapped[name] = (...args: unknown[]): unknown => {
        const result = real(...args);
        if (!(result instanceof Promise)) {
          count();
          return result;
        }
        return result.then((value: unknown) => {
          count();
          return value;
        });
      };
    }
    this.files = wrapped as unknown as FileSystem;
  }
}
