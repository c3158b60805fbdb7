import { createHash } from 'node:crypto';
import { readFile, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import {
  digestAlgorithm,
  digestHex,
  digestOf,
  isDigest,
  isLayercacheError,
  type Digest,
} from '@layercache/oci';
import type { OciLayout } from '@layercache/layout';

/** The file of what a remote has lost: digests, one a line. */
const LOST = 'lost';

/**
 * The cache index of each remote as it was last pushed or pulled, with its shards, in `.layercache/remote/`: so
 * that they are not fetched again, and so that what changed since, on which side, can be told. Side state:
 * deleting it costs requests and nothing else, and what is damaged counts as absent.
 */
export class RemoteMemory {
  readonly #layout: OciLayout;

  constructor(layout: OciLayout) {
    this.#layout = layout;
  }

  /** The bytes of the cache index that stood at a location. */
  async index(location: string): Promise<Uint8Array | undefined> {
    return readOrUndefined(join(this.#dir(location), 'index'));
  }

  async shard(location: string, digest: Digest): Promise<Uint8Array | undefined> {
    const bytes = await readOrUndefined(join(this.#dir(location), fileName(digest)));
    return bytes !== undefined && digestOf(bytes, digestAlgorithm(digest)) === digest ? bytes : undefined;
  }

  /** Replaces what was known of a location. A cache that cannot be written to does without. */
  async keep(location: string, index: Uint8Array, shards: ReadonlyMap<Digest, Uint8Array>): Promise<void> {
    const folder = folderName(location);
    try {
      const wanted = new Set(['index', LOST, ...[...shards.keys()].map(fileName)]);
      const there = new Set(await namesIn(this.#dir(location)));
      for (const [digest, bytes] of shards) {
        const name = fileName(digest);
        if (!there.has(name)) await this.#layout.replaceSideFile(`${folder}/${name}`, bytes);
      }
      await this.#layout.replaceSideFile(`${folder}/index`, index);
      for (const name of there) if (!wanted.has(name)) await this.#layout.removeSideFile(`${folder}/${name}`);
    } catch (error) {
      if (!isLayercacheError(error, 'STORAGE', 'CACHE_FULL')) throw error;
    }
  }

  /** Blobs and manifests that the location lists and was found not to have. */
  async lost(location: string): Promise<ReadonlySet<Digest>> {
    const bytes = await readOrUndefined(join(this.#dir(location), LOST));
    return new Set((bytes?.toString() ?? '').split('\n').filter(isDigest));
  }

  /** Replaces what is known to be lost at a location, so that a later push sends it again. */
  async keepLost(location: string, lost: ReadonlySet<Digest>): Promise<void> {
    const path = `${folderName(location)}/${LOST}`;
    try {
      if (lost.size > 0) await this.#layout.replaceSideFile(path, Buffer.from([...lost].join('\n')));
      else if ((await readOrUndefined(join(this.#dir(location), LOST))) !== undefined)
        await this.#layout.removeSideFile(path);
    } catch (error) {
      if (!isLayercacheError(error, 'STORAGE', 'CACHE_FULL')) throw error;
    }
  }

  #dir(location: string): string {
    return join(this.#layout.dir, '.layercache', folderName(location));
  }
}

function folderName(location: string): string {
  return `remote/${createHash('sha256').update(location).digest('hex').slice(0, 32)}`;
}

async function namesIn(folder: string): Promise<string[]> {
  try {
    return await readdir(folder);
  } catch (error) {
    if (isSystemError(error)) return [];
    throw error;
  }
}

function fileName(digest: Digest): string {
  return `${digestAlgorithm(digest)}-${digestHex(digest)}`;
}

async function readOrUndefined(path: string): Promise<Buffer | undefined> {
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
