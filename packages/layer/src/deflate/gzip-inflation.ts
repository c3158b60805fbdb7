import { createGunzip } from 'node:zlib';
import { LayercacheError } from '@layercache/oci';

/** Bytes of output at once. zlib's default of 16 KiB costs 40 % of the speed, in calls between threads. */
const CHUNK = 1 << 20;

/** Inflates a gzip stream of any number of members that is written to it, and says where it is corrupt. */
export class GzipInflation {
  // Buffers on both sides keep zlib's thread busy while this one hashes.
  readonly #gunzip = createGunzip({
    chunkSize: CHUNK,
    readableHighWaterMark: 4 * CHUNK,
    writableHighWaterMark: 2 * CHUNK,
  } as Parameters<typeof createGunzip>[0]);
  readonly #finished: Promise<void>;
  #failure: unknown;

  constructor(onOutput: (piece: Uint8Array) => void) {
    this.#finished = this.#drain(onOutput);
    this.#finished.catch((error: unknown) => {
      this.#failure = error;
    });
  }

  /** Takes the next bytes; resolves when there is room for more. */
  async write(bytes: Uint8Array): Promise<void> {
    if (this.#failure !== undefined) throw this.#failure as Error;
    if (this.#gunzip.write(bytes)) return;
    let onDrain: (() => void) | undefined;
    const drained = new Promise<void>((resolve) => {
      onDrain = resolve;
      this.#gunzip.once('drain', resolve);
    });
    try {
      // Padding behind the last member ends the stream while bytes are still being written.
      await Promise.race([drained, this.#finished]);
    } finally {
      if (onDrain !== undefined) this.#gunzip.off('drain', onDrain);
    }
  }

  async finish(): Promise<void> {
    this.#gunzip.end();
    await this.#finished;
  }

  close(): void {
    this.#gunzip.destroy();
  }

  async #drain(onOutput: (piece: Uint8Array) => void): Promise<void> {
    try {
      for await (const piece of this.#gunzip) onOutput(piece as Uint8Array);
    } catch (error) {
      if (error instanceof LayercacheError) throw error;
      throw new LayercacheError(
        'COMPRESSION_INVALID',
        `the gzip stream is corrupt at or before byte ${this.#gunzip.bytesWritten}: ${(error as Error).message}; fetch the layer again`,
        { cause: error },
      );
    }
  }
}
