import { randomUUID } from 'node:crypto';
import { open, rm, type FileHandle } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/**
 * Bytes of an upload whose digest is not known yet: a client that sends chunks names the digest after the last
 * one, and a {@link Registry} wants it before the first.
 */
export interface UploadSpool {
  /** Bytes it holds. */
  readonly size: number;
  /** Appends bytes as they come. When `source` fails, what came before it failed stays. */
  append(source: AsyncIterable<Uint8Array>): Promise<void>;
  /** Everything from the first byte. Can be called again. */
  read(): AsyncIterable<Uint8Array>;
  /** Frees what the bytes take. */
  discard(): Promise<void>;
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
  readonly #file: FileHandle;

  constructor(file: FileHandle) {
    this.#file = file;
  }

  async append(source: AsyncIterable<Uint8Array>): Promise<void> {
    for await (const chunk of source) {
      for (let written = 0; written < chunk.length;) {
        const { bytesWritten } = await this.#file.write(chunk, written, chunk.length - written, this.size);
        written += bytesWritten;
        this.size += bytesWritten;
      }
    }
  }

  read(): AsyncIterable<Uint8Array> {
    return this.#file.createReadStream({ start: 0, autoClose: false, highWaterMark: 1024 * 1024 });
  }

  async discard(): Promise<void> {
    await this.#file.close();
  }
}

class MemorySpool implements UploadSpool {
  size = 0;
  #chunks: Uint8Array[] = [];

  async append(source: AsyncIterable<Uint8Array>): Promise<void> {
    for await (const chunk of source) {
      this.#chunks.push(Uint8Array.from(chunk));
      this.size += chunk.length;
    }
  }

  async *read(): AsyncGenerator<Uint8Array> {
    yield* this.#chunks;
    await Promise.resolve();
  }

  discard(): Promise<void> {
    this.#chunks = [];
    return Promise.resolve();
  }
}
