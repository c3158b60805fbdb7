import { nodeFileSystem, type FileSystem } from '@layercache/layout';

/**
 * What happens at an operation: it fails with this code; half of a read or write is done; the process is dead before it
 * or after it.
 */
export type Fault = (typeof FAULTS)[number];
export const FAULTS = [
  'EIO',
  'EMFILE',
  'EACCES',
  'ESTALE',
  'ENOSPC',
  'short',
  'killed before',
  'killed after',
] as const;

type Operation = (...args: unknown[]) => unknown;

const ASYNC = new Set<string>([
  'mkdir',
  'open',
  'read',
  'write',
  'fsync',
  'fdatasync',
  'close',
  'rename',
  'unlink',
  'stat',
  'touch',
  'readdir',
] satisfies (keyof FileSystem)[]);

/** What the operations of a dead process end in. */
export class Dead extends Error {}

/** A disk that does one operation wrong. After a death it does nothing more, and what was open is closed. */
export class FaultyDisk {
  readonly files: FileSystem;
  /** Operations that were asked for. */
  count = 0;
  /** The operation that went wrong. */
  hit: string | undefined;
  #dead = false;
  readonly #at: number;
  readonly #fault: Fault;
  readonly #open = new Set<number>();

  /** @param at the number of the operation that goes wrong, from 0; Infinity for none */
  constructor(at: number, fault: Fault) {
    this.#at = at;
    this.#fault = fault;
    const wrapped: Record<string, unknown> = {};
    for (const [name, real] of Object.entries(nodeFileSystem) as [string, Operation][]) {
      const run = (...args: unknown[]): unknown => this.#run(name, real, args);
      wrapped[name] = ASYNC.has(name)
        ? async (...args: unknown[]) => Promise.resolve().then(() => run(...args))
        : run;
    }
    this.files = wrapped as unknown as FileSystem;
  }

  /** The process ends without another word. */
  end(): void {
    if (!this.#dead) this.#die('end');
  }

  #run(name: string, real: Operation, args: unknown[]): unknown {
    if (this.#dead) {
      if (name === 'closeSync' || name === 'close') return undefined;
      throw new Dead(name);
    }
    if (this.count++ !== this.#at) return this.#track(name, real(...args), args);
    this.hit = name;
    switch (this.#fault) {
      case 'killed before':
        throw this.#die(name);
      case 'killed after': {
        const result = this.#track(name, real(...args), args);
        if (!(result instanceof Promise)) throw this.#die(name);
        return result.then(() => {
          throw this.#die(name);
        });
      }
      case 'short':
        return this.#half(name, real, args);
      default:
        // A file that cannot be closed is closed all the same (close(2)).
        if (name === 'close' || name === 'closeSync') this.#track(name, real(...args), args);
        throw Object.assign(new Error(`${this.#fault}: ${name}`), { code: this.#fault, syscall: name });
    }
  }

  #half(name: string, real: Operation, args: unknown[]): unknown {
    const [fd, bytes, ...rest] = args;
    if (!(bytes instanceof Uint8Array)) return this.#track(name, real(...args), args);
    if (name === 'readSync') {
      const [offset, length, position] = rest as number[];
      return real(fd, bytes, offset, (length ?? 0) >> 1, position);
    }
    return real(fd, bytes.subarray(0, bytes.length >> 1), ...rest);
  }

  #track(name: string, result: unknown, args: unknown[]): unknown {
    if (name === 'openSync') this.#open.add(result as number);
    if (name === 'open') {
      return (result as Promise<number>).then((fd) => {
        // One that was under way when the process died is closed by the kernel, too.
        if (this.#dead) nodeFileSystem.closeSync(fd);
        else this.#open.add(fd);
        return fd;
      });
    }
    if (name === 'close' || name === 'closeSync') this.#open.delete(args[0] as number);
    return result;
  }

  /** The kernel closes what a dead process had open, and so unlocks it. */
  #die(name: string): Dead {
    this.#dead = true;
    for (const fd of this.#open) nodeFileSystem.closeSync(fd);
    return new Dead(name);
  }
}
