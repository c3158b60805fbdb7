import { constants, createGunzip, createInflateRaw, type ZlibOptions } from 'node:zlib';
import { LayercacheError } from '@layercache/oci';
import type { Checkpoint } from './checkpoint.js';

/** CRC32 and ISIZE behind each member (RFC 1952 section 2.3). */
const TRAILER_SIZE = 8;

function orLast(bytes: number[] | Uint8Array, bits: number): void {
  bytes[bytes.length - 1] = (bytes.at(-1) ?? 0) | bits;
}

/**
 * zlib in Node can only start at a byte, and a block can start at any bit. Empty blocks in front of it make up
 * the difference: they have any number of bits modulo 8 that is wanted, and no output.
 */
class BitWriter {
  readonly bytes: number[] = [];
  length = 0;

  /** Lowest bit first, as deflate stores everything but Huffman codes. */
  write(value: number, count: number): this {
    for (let bit = 0; bit < count; bit++, this.length++) {
      if (this.length % 8 === 0) this.bytes.push(0);
      orLast(this.bytes, ((value >>> bit) & 1) << (this.length % 8));
    }
    return this;
  }

  /** 10 bits: type 1, end of block. */
  writeEmptyFixedBlock(): this {
    return this.write(0b010, 3).write(0, 7);
  }

  /** 91 bits: type 2, with codes for 0 and 256 only, end of block. */
  writeEmptyDynamicBlock(): this {
    this.write(0b100, 3).write(0, 5).write(0, 5).write(14, 4);
    // The code length code, in the order of RFC 1951 section 3.2.7: one bit for 18 and for 1.
    for (let index = 0; index < 18; index++) this.write(index === 2 || index === 17 ? 1 : 0, 3);
    // Lengths: 1 for 0, then 255 times 0 (as 138 and 117), 1 for 256, 1 for the only distance.
    this.write(0, 1)
      .write(1, 1)
      .write(138 - 11, 7)
      .write(1, 1)
      .write(117 - 11, 7)
      .write(0, 2);
    return this.write(1, 1);
  }
}

/** Empty blocks of `8 - bits` bits modulo 8, for bits 0 to 7. */
const PREFIXES = Array.from({ length: 8 }, (_, bits) => {
  const wanted = (8 - bits) % 8;
  const prefix = new BitWriter();
  if (wanted % 2 === 1) prefix.writeEmptyDynamicBlock();
  while (prefix.length % 8 !== wanted) prefix.writeEmptyFixedBlock();
  return prefix.bytes;
});

/** Deflate data that starts at a byte, from a span that may start in the middle of one. */
function alignedHead(bits: number, first: number | undefined): Uint8Array {
  const head = Uint8Array.from(PREFIXES[bits] ?? []);
  if (bits > 0 && first !== undefined) orLast(head, first & (0xff << (8 - bits)));
  return head;
}

export interface InflateOptions {
  /** Bytes of a piece of output, at most. Default: 1 MiB. */
  readonly pieceSize?: number;
}

function zlibOptions(pieceSize: number): ZlibOptions & { readonly readableHighWaterMark: number } {
  return {
    // A span ends before its stream does: no end-of-stream is no error here.
    finishFlush: constants.Z_SYNC_FLUSH,
    // A buffer that is just filled is not the end for zlib: it would ask for another.
    chunkSize: pieceSize + 64,
    // zlib's threads go on while what they made is being hashed.
    readableHighWaterMark: 4 * pieceSize,
  };
}

function corrupt(checkpoint: Checkpoint, cause: unknown): LayercacheError {
  return new LayercacheError(
    'COMPRESSION_INVALID',
    `cannot inflate the span at byte ${checkpoint.input}: the layer or its index is corrupt; index the layer again`,
    { cause },
  );
}

/** What follows the member that `used` bytes complete; undefined when `bytes` do not go on behind it. */
function nextMembers(bytes: Uint8Array, used: number): Uint8Array | undefined {
  const next = used + TRAILER_SIZE;
  // Zeros behind a member are padding.
  return used < bytes.length && next < bytes.length && bytes[next] !== 0 ? bytes.subarray(next) : undefined;
}

/**
 * Inflates from a checkpoint on, through the ends of gzip members, until the bytes end. Memory is that of a few
 * pieces, however much comes out.
 *
 * @param bytes the compressed stream from `spanStart(checkpoint)` on
 * @throws LayercacheError `COMPRESSION_INVALID`
 */
export async function* inflateFrom(
  checkpoint: Checkpoint,
  bytes: Uint8Array,
  { pieceSize = 1 << 20 }: InflateOptions = {},
): AsyncGenerator<Uint8Array> {
  const options = zlibOptions(pieceSize);
  const head = alignedHead(checkpoint.bits, bytes[0]);
  const rest = checkpoint.bits === 0 ? bytes : bytes.subarray(1);
  try {
    const raw = createInflateRaw({ ...options, dictionary: checkpoint.window });
    raw.write(head);
    raw.end(rest);
    for await (const piece of raw) yield piece as Uint8Array;
    const members = nextMembers(rest, raw.bytesWritten - head.length);
    if (members === undefined) return;
    const gunzip = createGunzip(options);
    gunzip.end(members);
    for await (const piece of gunzip) yield piece as Uint8Array;
  } catch (error) {
    throw corrupt(checkpoint, error);
  }
}
