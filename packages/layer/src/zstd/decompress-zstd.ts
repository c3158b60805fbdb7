import { Decompress } from 'fzstd';
import { LayercacheError } from '@layercache/oci';
import { Turn } from '../turn.js';
import { Xxh64 } from './xxh64.js';
import { ZstdFrames } from './zstd-frames.js';

/**
 * The tar inside a zstd layer of any number of frames (RFC 8878 section 3.1), in the memory of one window of at most
 * 128 MiB. The checksum of each frame that has one is checked. In JavaScript on every Node: the decoder of `node:zlib`,
 * where there is one, stops after the first frame, and layers in the zstd:chunked way have thousands.
 *
 * @throws LayercacheError `COMPRESSION_INVALID`; errors of the source as they are
 */
export async function* decompressZstd(
  source: AsyncIterable<Uint8Array>,
  signal?: AbortSignal,
): AsyncGenerator<Uint8Array> {
  const frames = new ZstdFrames();
  const turn = new Turn();
  let frame: Frame | undefined;
  for await (const bytes of source) {
    for (const piece of frames.push(bytes)) {
      frame ??= new Frame();
      yield* frame.push(piece.bytes, piece.isLast);
      if (turn.isOver) await turn.next(signal);
      if (!piece.isLast) continue;
      if (piece.checksum !== undefined) frame.check(piece.checksum);
      frame = undefined;
    }
  }
  if (!frames.isBetweenFrames) throw corrupt('it ends inside a frame');
}

/** One frame, with a decoder of its own. */
class Frame {
  readonly #decoder = new Decompress((piece) => this.#ready.push(piece));
  readonly #hash = new Xxh64();
  #ready: Uint8Array[] = [];

  push(bytes: Uint8Array, isLast: boolean): readonly Uint8Array[] {
    this.#ready = [];
    try {
      this.#decoder.push(bytes, isLast);
    } catch (error) {
      throw corrupt(error instanceof Error ? error.message : String(error), error);
    }
    for (const piece of this.#ready) this.#hash.update(piece);
    return this.#ready;
  }

  check(checksum: number): void {
    if (Number(this.#hash.digest() & 0xffff_ffffn) !== checksum)
      throw corrupt('the checksum of a frame is wrong');
  }
}

function corrupt(reason: string, cause?: unknown): LayercacheError {
  return new LayercacheError(
    'COMPRESSION_INVALID',
    `the zstd stream is corrupt or truncated: ${reason}; fetch the layer again`,
    { cause },
  );
}
