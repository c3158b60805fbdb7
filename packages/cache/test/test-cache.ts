import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Readable } from 'node:stream';
import { LayerCache, type LayerCacheOptions } from '../src/index.js';
import { LayercacheError, type ErrorCode } from '@layercache/oci';
import { MemoryRegistry, type Registry } from '@layercache/registry';

/** Folders and caches of one test, gone after it. */
export class Scratch {
  readonly #dirs: string[] = [];
  readonly #caches: LayerCache[] = [];

  async dir(): Promise<string> {
    const dir = await mkdtemp(join(tmpdir(), 'layercache-test-'));
    this.#dirs.push(dir);
    return dir;
  }

  async cache(options: LayerCacheOptions & { readonly dir?: string } = {}): Promise<LayerCache> {
    const { dir, ...rest } = options;
    const cache = await LayerCache.open(dir ?? join(await this.dir(), 'cache'), rest);
    this.#caches.push(cache);
    return cache;
  }

  async clean(): Promise<void> {
    for (const cache of this.#caches.splice(0)) await cache.close();
    for (const dir of this.#dirs.splice(0)) await rm(dir, { recursive: true, force: true });
  }
}

/** Counts what is asked of a registry: the network, as a test sees it. */
export function counted(
  registry: Registry,
): Registry & { readonly asked: Map<string, number>; bytes: number } {
  const asked = new Map<string, number>();
  const counter = new Proxy(registry, {
    get(target, name, receiver) {
      if (name === 'asked') return asked;
      const value: unknown = Reflect.get(target, name, receiver);
      if (typeof value !== 'function' || typeof name !== 'string') return value;
      return (...args: unknown[]): unknown => {
        asked.set(name, (asked.get(name) ?? 0) + 1);
        return Reflect.apply(value, target, args) as unknown;
      };
    },
  });
  return counter as Registry & { readonly asked: Map<string, number>; bytes: number };
}

export function memoryRegistry(): ReturnType<typeof counted> {
  return counted(new MemoryRegistry());
}

export async function bytesOf(stream: Readable | Promise<Readable>): Promise<Buffer> {
  const chunks: Uint8Array[] = [];
  for await (const chunk of await stream) chunks.push(chunk as Uint8Array);
  return Buffer.concat(chunks);
}

/** The error that `work` ends in; a test of one fails when there is none, or one with another code. */
export async function failure(code: ErrorCode, work: () => unknown): Promise<LayercacheError> {
  try {
    await work();
  } catch (error) {
    if (error instanceof LayercacheError && error.code === code) return error;
    throw error;
  }
  throw new Error(`expected ${code}, but there was no error`);
}

/** Every file below a folder, as relative paths, sorted. */
export async function filesBelow(dir: string): Promise<string[]> {
  const entries = await readdir(dir, { recursive: true, withFileTypes: true });
  return entries
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name).slice(dir.length + 1))
    .sort();
}
