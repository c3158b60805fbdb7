import { createHash, randomBytes } from 'node:crypto';
import { mkdir, readFile, readdir, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { digestAlgorithm, digestHex, digestOf, type Digest } from '@layercache/oci';

/**
 * The cache index of each remote as it was last pushed or pulled, with its shards, in `.layercache/remote/`: so
 * that they are not fetched again, and so that what changed since, on which side, can be told. Side state:
 * deleting it costs requests and nothing else, and what is damaged counts as absent.
 */
export class RemoteMemory {
  readonly #dir: string;

  /** @param cacheDir the folder of the cache */
  constructor(cacheDir: string) {
    this.#dir = join(cacheDir, '.layercache', 'remote');
  }

  /** The bytes of the cache index that stood at a location. */
  async index(location: string): Promise<Uint8Array | undefined> {
    return readOrUndefined(join(this.#folder(location), 'index'));
  }

  async shard(location: string, digest: Digest): Promise<Uint8Array | undefined> {
    const bytes = await readOrUndefined(join(this.#folder(location), fileName(digest)));
    return bytes !== undefined && digestOf(bytes, digestAlgorithm(digest)) === digest ? bytes : undefined;
  }

  /** Replaces what was known of a location. A cache that cannot be written to does without. */
  async keep(location: string, index: Uint8Array, shards: ReadonlyMap<Digest, Uint8Array>): Promise<void> {
    const folder = this.#folder(location);
    try {
      await mkdir(folder, { recursive: true });
      const wanted = new Set(['index', ...[...shards.keys()].map(fileName)]);
      const there = new Set(await readdir(folder));
      for (const [digest, bytes] of shards) {
        if (!there.has(fileName(digest))) await replaceFile(folder, fileName(digest), bytes);
      }
      await replaceFile(folder, 'index', index);
      for (const name of there) if (!wanted.has(name)) await rm(join(folder, name), { force: true });
    } catch (error) {
      if (!isSystemError(error)) throw error;
    }
  }

  #folder(location: string): string {
    return join(this.#dir, createHash('sha256').update(location).digest('hex').slice(0, 32));
  }
}

function fileName(digest: Digest): string {
  return `${digestAlgorithm(digest)}-${digestHex(digest)}`;
}

async function replaceFile(folder: string, name: string, bytes: Uint8Array): Promise<void> {
  const temp = join(folder, `${name}.${randomBytes(6).toString('hex')}`);
  try {
    await writeFile(temp, bytes);
    await rename(temp, join(folder, name));
  } finally {
    await rm(temp, { force: true });
  }
}

async function readOrUndefined(path: string): Promise<Uint8Array | undefined> {
  try {
    return await readFile(path);
  } catch (error) {
    if (isSystemError(error)) return undefined;
    throw error;
  }
}

function isSystemError(error: unknown): boolean {
  return error instanceof Error && 'syscall' in error;
}
