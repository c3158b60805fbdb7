import type { Readable, Transform } from 'node:stream';
import zlib from 'node:zlib';
import { Decompress as ZstdDecoder } from 'fzstd';
import { LayercacheError, type LayerForm } from '@layercache/oci';

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

/** In JavaScript on every Node: where `node:zlib` has a decoder, it stops after the first frame. */
async function* zstd(compressed: Readable, name: string): AsyncGenerator<Uint8Array> {
  const ready: Uint8Array[] = [];
  const decoder = new ZstdDecoder((chunk) => ready.push(chunk));
  const push = (bytes: Uint8Array, last: boolean): void => {
    try {
      decoder.push(bytes, last);
    } catch (error) {
      throw asCompressionError(error, name);
    }
  };
  let broken: unknown;
  for await (const bytes of compressed as AsyncIterable<Uint8Array>) {
    if (broken !== undefined) continue;
    try {
      push(bytes, false);
    } catch (error) {
      broken = error;
    }
    yield* ready.splice(0);
  }
  if (broken !== undefined) throw broken as Error;
  push(new Uint8Array(0), true);
  yield* ready;
}

function asCompressionError(error: unknown, name: string): unknown {
  if (error instanceof LayercacheError) return error;
  if (!(error instanceof Error)) return error;
  const code = (error as { code?: unknown }).code;
  // fzstd counts its errors; zlib names them; anything else is no error of a decoder.
  if (typeof code === 'string' && !code.startsWith('Z_')) return error;
  return new LayercacheError('COMPRESSION_INVALID', `${name} cannot be decompressed: ${error.message}`, {
    cause: error,
  });
}
