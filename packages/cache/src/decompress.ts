import type { Readable, Transform } from 'node:stream';
import { finished } from 'node:stream/promises';
import zlib from 'node:zlib';
import { decompressZstd } from '@layercache/layer';
import { LayercacheError, isLayercacheError, type LayerForm } from '@layercache/oci';

/** Bytes. zlib's default of 16 KiB costs 40 % of the speed, in calls between threads. */
const CHUNK_SIZE = 1024 * 1024;

/**
 * The tar inside the bytes of a layer, in constant memory. gzip may have several members (RFC 1952,
 * section 2.2), zstd several frames (RFC 8878, section 3.1).
 *
 * @param name says in an error which layer it was
 * @throws LayercacheError `COMPRESSION_INVALID`; errors of `compressed` as they are
 */
export function decompress(form: LayerForm, compressed: Readable, name: string): AsyncIterable<Uint8Array> {
  if (form === 'tar') return compressed;
  if (form === 'tar+gzip') return through(zlib.createGunzip({ chunkSize: CHUNK_SIZE }), compressed, name);
  return zstd(compressed, name);
}

async function* through(decoder: Transform, compressed: Readable, name: string): AsyncGenerator<Uint8Array> {
  const fed = feed(compressed, decoder).then(
    () => undefined,
    (error: unknown) => error,
  );
  try {
    yield* decoder as AsyncIterable<Uint8Array>;
  } catch (error) {
    // Bytes that are not what they should be are the better reason why they cannot be decompressed.
    throw (await fed) ?? asCompressionError(error, name);
  } finally {
    compressed.destroy();
    decoder.destroy();
  }
}

/** Goes on reading when the decoder has failed: whether the bytes were right at all shows at their end. */
async function feed(compressed: Readable, decoder: Transform): Promise<void> {
  try {
    for await (const bytes of compressed as AsyncIterable<Uint8Array>) {
      if (decoder.destroyed || decoder.write(bytes)) continue;
      await new Promise<void>((resolve) => {
        const proceed = (): void => {
          decoder.off('drain', proceed).off('close', proceed);
          resolve();
        };
        decoder.once('drain', proceed).once('close', proceed);
      });
    }
    decoder.end();
  } catch (error) {
    decoder.destroy(error as Error);
    throw error;
  }
}

async function* zstd(compressed: Readable, name: string): AsyncGenerator<Uint8Array> {
  try {
    yield* decompressZstd(
      compressed.iterator({ destroyOnReturn: false }) as AsyncIterableIterator<Uint8Array>,
    );
  } catch (error) {
    // Goes on reading: whether the bytes were right at all shows at their end.
    if (isLayercacheError(error, 'COMPRESSION_INVALID')) await finished(compressed.resume());
    throw asCompressionError(error, name);
  } finally {
    compressed.destroy();
  }
}

function asCompressionError(error: unknown, name: string): unknown {
  if (!(error instanceof Error)) return error;
  const code = (error as { code?: unknown }).code;
  // zlib names its errors so; anything else is no error of a decoder.
  if (typeof code !== 'string' || !(code.startsWith('Z_') || code === 'COMPRESSION_INVALID')) return error;
  return new LayercacheError('COMPRESSION_INVALID', `${name} cannot be decompressed: ${error.message}`, {
    cause: error,
  });
}
