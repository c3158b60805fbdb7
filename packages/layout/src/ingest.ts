import { constants } from 'node:fs';
import { join } from 'node:path';
import {
  Digester,
  LayercacheError,
  SingleFlight,
  digestAlgorithm,
  digestHex,
  isLayercacheError,
  throwIfAborted,
  type Digest,
} from '@layercache/oci';
import { abortable, delay } from './abort.js';
import { BlobFile } from './blob-file.js';
import { checkBytes, type Blobs } from './blobs.js';
import { isSystemError, storageError, type FileSystem } from './file-system.js';
import type { Room, Space } from './space/space.js';

/** What is wanted. */
export interface Wanted {
  readonly digest: Digest;
  /** Bytes, where known. */
  readonly size?: number | undefined;
}

/** Bytes from `offset` on, which is what was asked for, or 0 where the source cannot start elsewhere. */
export type OpenSource = (
  offset: number,
  signal: AbortSignal,
) => Promise<{ readonly offset: number; readonly body: AsyncIterable<Uint8Array> }>;

export interface IngestOptions {
  readonly signal?: AbortSignal | undefined;
  /** Told how many bytes of the blob are here so far. */
  readonly onProgress?: ((received: number) => void) | undefined;
}

export interface Ingested {
  /** Bytes of the blob. */
  readonly size: number;
  /** Bytes that came from the source; 0 when the blob was here. */
  readonly fetched: number;
}

const READ_SIZE = 1024 * 1024;
/** How often to look whether another process is done with a blob, in ms. */
const POLL = 25;

/** Downloads that can be interrupted and go on: one fetch of a digest at a time, whoever asks. */
export class Ingest {
  readonly #files: FileSystem;
  readonly #blobs: Blobs;
  readonly #dir: string;
  readonly #space: Space | undefined;
  readonly #flights = new SingleFlight<Ingested>();
  readonly #listeners = new Map<Digest, Set<(received: number) => void>>();

  /**
   * @param dir the folder for partial downloads
   * @param space where room is limited
   */
  constructor(files: FileSystem, dir: string, blobs: Blobs, space?: Space) {
    this.#files = files;
    this.#dir = dir;
    this.#blobs = blobs;
    this.#space = space;
  }

  partialPath(digest: Digest): string {
    return join(this.#dir, `${digestAlgorithm(digest)}-${digestHex(digest)}.partial`);
  }

  /** Joins the fetch of this digest, or starts it. It is stopped when all who wait for it have given up. */
  async fetch(want: Wanted, open: OpenSource, options: IngestOptions = {}): Promise<Ingested> {
    const { digest } = want;
    const { signal, onProgress } = options;
    const listeners = this.#listeners.get(digest) ?? new Set();
    this.#listeners.set(digest, listeners);
    if (onProgress !== undefined) listeners.add(onProgress);
    const report = (received: number): void => {
      for (const listener of this.#listeners.get(digest) ?? []) listener(received);
    };
    try {
      return await this.#flights.run(digest, signal, (all) => this.#run(want, open, all, report));
    } finally {
      if (onProgress !== undefined) listeners.delete(onProgress);
      if (listeners.size === 0 && this.#listeners.get(digest) === listeners) this.#listeners.delete(digest);
    }
  }

  async #run(
    want: Wanted,
    open: OpenSource,
    signal: AbortSignal,
    report: (received: number) => void,
  ): Promise<Ingested> {
    try {
      if (await this.#blobs.pinExisting(want.digest, want.size)) return await this.#present(want.digest);
      const fd = await this.#lockPartial(want.digest, signal);
      let taken = false;
      let room: Room | undefined;
      try {
        if (await this.#blobs.pinExisting(want.digest, want.size)) {
          await this.#files.unlink(this.partialPath(want.digest));
          return await this.#present(want.digest);
        }
        const written = Number(this.#files.fstatSync(fd).size);
        room = await this.#space?.reserve(want.size, { signal, written });
        const { digester, fetched } = await this.#fill(fd, want, open, signal, report, room);
        await this.#blobs.publish(this.partialPath(want.digest), fd, want.digest, digester.size);
        taken = true;
        return { size: digester.size, fetched };
      } catch (error) {
        // Progress is worth less than the room to do anything at all.
        if (isSystemError(error, 'ENOSPC', 'EDQUOT') || isLayercacheError(error, 'CACHE_FULL'))
          await this.#files.unlink(this.partialPath(want.digest));
        throw error;
      } finally {
        if (!taken) await this.#files.close(fd);
        await room?.release();
      }
    } catch (error) {
      throw storageError(error, `store ${want.digest}`);
    }
  }

  async #present(digest: Digest): Promise<Ingested> {
    return { size: (await this.#blobs.size(digest)) ?? 0, fetched: 0 };
  }

  /** The partial file, locked: another process that fetches the same digest is waited for. */
  async #lockPartial(digest: Digest, signal: AbortSignal): Promise<number> {
    const path = this.partialPath(digest);
    for (;;) {
      throwIfAborted(signal);
      await this.#files.mkdir(this.#dir);
      const fd = await this.#files.open(path, constants.O_RDWR | constants.O_CREAT, 0o666);
      let held = false;
      try {
        // Whoever had it may have made it the blob, or removed it: then it is no partial any more.
        const { ino } = this.#files.fstatSync(fd);
        while (!held && (await this.#files.stat(path)).ino === ino) {
          held = this.#files.tryLock(fd, 'exclusive');
          if (!held) await delay(POLL, signal);
        }
        if (held) held = (await this.#files.stat(path)).ino === ino;
        if (held) return fd;
      } catch (error) {
        if (!isSystemError(error, 'ENOENT')) throw error;
        held = false;
      } finally {
        if (!held) await this.#files.close(fd);
      }
    }
  }

  /** Completes the partial. What it held before is hashed again, and given up if it was not the beginning. */
  async #fill(
    fd: number,
    want: Wanted,
    open: OpenSource,
    signal: AbortSignal,
    report: (received: number) => void,
    room: Room | undefined,
  ): Promise<{ digester: Digester; fetched: number }> {
    room?.cover(fd);
    let digester = await this.#rehash(fd, want);
    const resumed = digester.size > 0;
    let fetched = 0;
    if (!resumed || digester.size !== want.size) {
      const source = await open(digester.size, signal);
      if (source.offset === 0 && resumed) {
        this.#files.ftruncateSync(fd, 0);
        digester = new Digester(digester.algorithm);
      } else if (source.offset !== digester.size) {
        throw new LayercacheError(
          'USAGE',
          `the source of ${want.digest} answered from byte ${source.offset} when asked for ${digester.size}`,
        );
      }
      report(digester.size);
      const file = new BlobFile(this.#files, fd, digester, want.size, room);
      try {
        for await (const chunk of abortable(source.body, signal)) {
          await file.append(chunk);
          fetched += chunk.byteLength;
          report(digester.size);
          if (want.size !== undefined && digester.size > want.size) break;
        }
      } finally {
        // Also what came before the connection broke: it is progress.
        await file.flush();
      }
    }
    // Too few bytes of the right blob are progress; anything else is worth nothing.
    const short = want.size !== undefined && digester.size < want.size;
    try {
      checkBytes(digester, want);
      return { digester, fetched };
    } catch (error) {
      if (short || !isLayercacheError(error, 'DIGEST_MISMATCH')) throw error;
      this.#files.ftruncateSync(fd, 0);
      if (!resumed) throw error;
      const again = await this.#fill(fd, want, open, signal, report, room);
      return { digester: again.digester, fetched: fetched + again.fetched };
    }
  }

  async #rehash(fd: number, want: Wanted): Promise<Digester> {
    const size = Number(this.#files.fstatSync(fd).size);
    const digester = new Digester(digestAlgorithm(want.digest));
    if (want.size !== undefined && size > want.size) {
      this.#files.ftruncateSync(fd, 0);
      return digester;
    }
    const buffer = Buffer.allocUnsafe(Math.min(READ_SIZE, size));
    while (digester.size < size) {
      const count = await this.#files.read(fd, buffer, digester.size);
      if (count === 0) break;
      digester.update(buffer.subarray(0, count));
    }
    return digester;
  }
}
