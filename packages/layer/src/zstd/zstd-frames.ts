import { LayercacheError } from '@layercache/oci';

/** Bytes. What the reference decoder gives a stream as well, unless it is told otherwise: levels to 22 need no more. */
export const MAX_ZSTD_WINDOW = 128 * 1024 * 1024;

/** Bytes of a block, compressed or not (RFC 8878 section 3.1.1.2, "Block_Maximum_Size"). */
const MAX_BLOCK = 128 * 1024;

const MAGIC = 0xfd2fb528;
const SKIPPABLE_MAGIC = 0x184d2a50;
const RLE_BLOCK = 1;
const RESERVED_BLOCK = 3;
const CHECKSUM_SIZE = 4;

type Part =
  | 'magic'
  | 'skippable size'
  | 'skippable'
  | 'frame descriptor'
  | 'frame header'
  | 'block header'
  | 'block'
  | 'checksum';

/** Bytes of a frame, up to the end of a block or of what is there. */
export interface ZstdPiece {
  readonly bytes: Uint8Array;
  /** Whether the frame ends with them. */
  readonly isLast: boolean;
  /** At the end of a frame that has one: the low half of the XXH64 of its contents. */
  readonly checksum: number | undefined;
}

const MAGIC_PIECE: ZstdPiece = {
  bytes: Uint8Array.of(0x28, 0xb5, 0x2f, 0xfd),
  isLast: false,
  checksum: undefined,
};

/**
 * Goes through a zstd stream from frame to frame and from block to block (RFC 8878 section 3.1), ahead of the decoder.
 * The decoder makes a window of whatever size a frame asks for, and decompresses all that it is given in one go: it gets
 * the stream block by block, and no frame that asks for too much.
 */
export class ZstdFrames {
  #part: Part = 'magic';
  /** Bytes of the part that have come; of contents, none. */
  readonly #head = Buffer.alloc(16);
  #filled = 0;
  /** Bytes of the part. */
  #size = 4;
  #descriptor = 0;
  #isLastBlock = false;
  /** Bytes of the stream that have been gone through. */
  #offset = 0;

  /** @throws LayercacheError `COMPRESSION_INVALID` for a window of more than {@link MAX_ZSTD_WINDOW}, or what is no zstd */
  *push(bytes: Uint8Array): Generator<ZstdPiece> {
    for (let at = 0; at < bytes.length;) {
      const part = this.#part;
      const piece = bytes.subarray(at, at + this.#size - this.#filled);
      if (this.#size <= this.#head.length) this.#head.set(piece, this.#filled);
      this.#filled += piece.length;
      this.#offset += piece.length;
      at += piece.length;
      while (this.#filled === this.#size) this.#next();
      if (part === 'skippable' || part === 'skippable size') continue;
      if (part !== 'magic') {
        const isLast = this.isBetweenFrames;
        const checksum = isLast && part === 'checksum' ? this.#head.readUInt32LE(0) : undefined;
        yield { bytes: piece, isLast, checksum };
      } else if (this.#part === 'frame descriptor') yield MAGIC_PIECE;
    }
  }

  /** Whether the stream may end here. */
  get isBetweenFrames(): boolean {
    return this.#part === 'magic' && this.#filled === 0;
  }

  /** A part is complete. */
  #next(): void {
    const head = this.#head;
    switch (this.#part) {
      case 'magic': {
        const magic = head.readUInt32LE(0);
        if (magic === MAGIC) this.#expect('frame descriptor', 1);
        else if (magic >>> 4 === SKIPPABLE_MAGIC >>> 4) this.#expect('skippable size', 4);
        else this.#refuse('there is no zstd frame');
        return;
      }
      case 'skippable size':
        this.#expect('skippable', head.readUInt32LE(0));
        return;
      case 'frame descriptor':
        this.#descriptor = head.readUInt8(0);
        this.#expect(
          'frame header',
          windowSize(this.#descriptor) + idSize(this.#descriptor) + contentSize(this.#descriptor),
        );
        return;
      case 'frame header':
        this.#checkWindow();
        this.#expect('block header', 3);
        return;
      case 'block header': {
        const header = head.readUIntLE(0, 3);
        const type = (header >> 1) & 3;
        this.#isLastBlock = (header & 1) === 1;
        const size = header >> 3;
        if (type === RESERVED_BLOCK) this.#refuse('a block has the reserved type 3');
        if (size > MAX_BLOCK) this.#refuse(`a block of ${size} bytes is larger than ${MAX_BLOCK}`);
        this.#expect('block', type === RLE_BLOCK ? 1 : size);
        return;
      }
      case 'block':
        if (!this.#isLastBlock) this.#expect('block header', 3);
        else if (hasChecksum(this.#descriptor)) this.#expect('checksum', CHECKSUM_SIZE);
        else this.#expect('magic', 4);
        return;
      case 'skippable':
      case 'checksum':
        this.#expect('magic', 4);
    }
  }

  #expect(part: Part, size: number): void {
    this.#part = part;
    this.#size = size;
    this.#filled = 0;
  }

  #checkWindow(): void {
    const window = isSingleSegment(this.#descriptor)
      ? this.#contentSize()
      : describedWindow(this.#head.readUInt8(0));
    if (window <= MAX_ZSTD_WINDOW) return;
    throw new LayercacheError(
      'COMPRESSION_INVALID',
      `a zstd frame wants a window of ${window} bytes, more than ${MAX_ZSTD_WINDOW}: compress the layer without --ultra --long`,
    );
  }

  #refuse(problem: string): never {
    throw new LayercacheError(
      'COMPRESSION_INVALID',
      `the zstd stream is corrupt before byte ${this.#offset}: ${problem}; fetch the layer again`,
    );
  }

  /** A frame of a single segment has its contents as its window. */
  #contentSize(): number {
    const at = idSize(this.#descriptor);
    switch (contentSize(this.#descriptor)) {
      case 1:
        return this.#head.readUInt8(at);
      case 2:
        return this.#head.readUInt16LE(at) + 256;
      case 4:
        return this.#head.readUInt32LE(at);
      default:
        return Number(this.#head.readBigUInt64LE(at));
    }
  }
}

function hasChecksum(descriptor: number): boolean {
  return (descriptor & 4) !== 0;
}

function isSingleSegment(descriptor: number): boolean {
  return (descriptor & 32) !== 0;
}

function windowSize(descriptor: number): number {
  return isSingleSegment(descriptor) ? 0 : 1;
}

function idSize(descriptor: number): number {
  return [0, 1, 2, 4][descriptor & 3] ?? 0;
}

function contentSize(descriptor: number): number {
  return [isSingleSegment(descriptor) ? 1 : 0, 2, 4, 8][descriptor >> 6] ?? 0;
}

/** Exponent and mantissa of Window_Descriptor. */
function describedWindow(byte: number): number {
  const base = 2 ** (10 + (byte >> 3));
  return base + (base / 8) * (byte & 7);
}
