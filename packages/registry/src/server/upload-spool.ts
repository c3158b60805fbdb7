import { randomUUID } from 'node:crypto';
import { open, rm, type FileHandle } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { LayercacheError } from '@layercache/oci';
import type { ByteSource } from '../registry.js';

/**
 * Bytes of an upload whose digest is not known yet: a client that sends chunks names the digest after the last
 * one, and a {@link Registry} wants it before the first.
 */
export interface UploadSpool {
  /** Bytes it holds. */
  readonly size: number;
  /**
   * Everything from the first byte. Can be called again. It is the same function every time, so that a registry
   * that opened the spool knows its own bytes when they are pushed, and need not copy them.
   */
  readonly source: ByteSource;
  /**
   * Appends bytes as they come. When `bytes` fails, those that came before stay.
   *
   * @param options.length how many will come, where known
   * @throws LayercacheError `CACHE_FULL` while they arrive, or before; `NOT_FOUND` when the spool was given up
   */
  append(bytes: AsyncIterable<Uint8Array>, options?: AppendOptions): Promise<void>;
  /** Frees what the bytes take. */
  discard(): Promise<void>;
}

export interface AppendOptions {
  readonly length?: number | undefined;
  readonly signal?: AbortSignal | undefined;
}

export type OpenSpool = () => Promise<UploadSpool>;

/**
 * Keeps uploads in temporary files in `directory` (default: the system's). They lose their names as soon as they
 * are open, so that nothing is left of them whatever ends this process.
 */
export function fileSpools(directory = tmpdir()): OpenSpool {
  return async () => {
    const path = join(directory, `layercache-upload-${randomUUID()}`);
    const file = await open(path, 'wx+', 0o600);
    await rm(path);
    return new FileSpool(file);
  };
}

/** Keeps uploads in memory: for tests, and where there is no place to write. */
export function memorySpools(): OpenSpool {
  return () => Promise.resolve(new MemorySpool());
}

class FileSpool implements UploadSpool {
  size = 0;
  readonly source: ByteSource;
  readonly #file: FileHandle;

  constructor(file: FileHandle) {
    this.#file = file;
    this.source = () => file.createReadStream({ start: 0, autoClose: false, highWaterMark: 1024 * 1024 });
  }

  async append(bytes: AsyncIterable<Uint8Array>): Promise<void> {
    for await (const chunk of bytes) {
      await this.#write(chunk);
    }
  }

  async #write(chunk: Uint8Array): Promise<void> {
    try {
      for (let written = 0; written < chunk.length;) {
        const { bytesWritten } = await this.#file.write(chunk, written, chunk.length - written, this.size);
        written += bytesWritten;
        this.size += bytesWritten;
      }
    } catch (cause) {
      throw new LayercacheError('STORAGE', 'there is no place for the upload: free some of the disk', {
        cause,
      });
    }
  }

  async discard(): Promise<void> {
    await this.#file.close();
  }
}

class MemorySpool implements UploadSpool {
  size = 0;
  #chunks: Uint8Array[] = [];
  readonly source: ByteSource = () => this.#chunks;

  async append(bytes: AsyncIterable<Uint8Array>): Promise<void> {
    for await (const chunk of bytes) {
      this.#chunks.push(Uint8Array.from(chunk));
      this.size += chunk.length;
    }
  }

  discard(): Promise<void> {
    this.#chunks = [];
    return Promise.resolve();
  }
}
