import type { Transform } from 'node:stream';
import zlib from 'node:zlib';
import { Decompress } from 'fzstd';
import { LayercacheError } from '@layercache/oci';

/** `node:zlib` has zstd from Node 22.15 on. */
const { createZstdDecompress } = zlib as {
  readonly createZstdDecompress?: (options: { readonly chunkSize: number }) => Transform;
};

/**
 * The tar inside a zstd layer of any number of frames (RFC 8878 section 3.1), in the memory of one window.
 *
 * @throws LayercacheError `COMPRESSION_INVALID`; errors of the source as they are
 */
export async function* decompressZstd(source: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  if (createZstdDecompress === undefined) yield* decompressInJavaScript(source);
  else yield* decompressNatively(source, createZstdDecompress({ chunkSize: 1 << 20 }));
}

async function* decompressNatively(
  source: AsyncIterable<Uint8Array>,
  decoder: Transform,
): AsyncGenerator<Uint8Array> {
  let sourceError: unknown;
  const feed = async (): Promise<void> => {
    try {
      for await (const bytes of source) {
        if (!decoder.write(bytes)) await new Promise((resolve) => decoder.once('drain', resolve));
      }
      decoder.end();
    } catch (error) {
      sourceError = error;
      decoder.destroy();
    }
  };
  void feed();
  try {
    for await (const piece of decoder) yield piece as Uint8Array;
  } catch (error) {
    throw sourceError instanceof Error ? sourceError : corrupt(error);
  } finally {
    decoder.destroy();
  }
}

async function* decompressInJavaScript(source: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  const ready: Uint8Array[] = [];
  const decoder = new Decompress((piece) => ready.push(piece));
  const push = (bytes: Uint8Array, isLast: boolean): void => {
    try {
      decoder.push(bytes, isLast);
    } catch (error) {
      throw corrupt(error);
    }
  };
  for await (const bytes of source) {
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
