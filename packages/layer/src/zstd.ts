import { Decompress } from 'fzstd';
import { LayercacheError } from '@layercache/oci';
import { ZstdWindows } from './zstd-windows.js';

/**
 * The tar inside a zstd layer of any number of frames (RFC 8878 section 3.1), in the memory of one window of at most
 * 128 MiB. In
 * JavaScript on every Node: the decoder of `node:zlib`, where there is one, stops after the first frame, and layers
 * in the zstd:chunked way have thousands.
 *
 * @throws LayercacheError `COMPRESSION_INVALID`; errors of the source as they are
 */
export async function* decompressZstd(source: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  const ready: Uint8Array[] = [];
  const decoder = new Decompress((piece) => ready.push(piece));
  const windows = new ZstdWindows();
  const push = (bytes: Uint8Array, isLast: boolean): void => {
    try {
      decoder.push(bytes, isLast);
    } catch (error) {
      throw corrupt(error);
    }
  };
  for await (const bytes of source) {
    windows.push(bytes);
    push(bytes, false);
    yield* ready.splice(0);
  }
  push(new Uint8Array(0), true);
  yield* ready;
}

function corrupt(cause: unknown): LayercacheError {
  const reason = cause instanceof Error ? cause.message : String(cause);
  return new LayercacheError(
    'COMPRESSION_INVALID',
    `the zstd stream is corrupt or truncated: ${reason}; fetch the layer again`,
    { cause },
  );
}
