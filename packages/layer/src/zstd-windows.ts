import { LayercacheError } from '@layercache/oci';

/** Bytes. What the reference decoder gives a stream as well, unless it is told otherwise: levels to 22 need no more. */
export const MAX_ZSTD_WINDOW = 128 * 1024 * 1024;

const MAGIC = 0xfd2fb528;
const SKIPPABLE_MAGIC = 0x184d2a50;
const RLE_BLOCK = 1;

type Part = 'magic' | 'skippable size' | 'frame descriptor' | 'frame header' | 'block header' | 'content';

/**
 * Goes through a zstd stream from frame to frame and from block to block (RFC 8878 section 3.1), ahead of the decoder,
 * which makes a window of whatever size a frame asks for.
 */
export class ZstdWindows {
  #part: Part = 'magic';
  /** Bytes of the part that have come; of contents, none. */
  #head = Buffer.alloc(16);
  #filled = 0;
  /** Bytes of the part. */
  #size = 4;
  #descriptor = 0;
  #isLastBlock = false;

  /** @throws LayercacheError `COMPRESSION_INVALID` when a frame wants a window of more than {@link MAX_ZSTD_WINDOW} */
  push(bytes: Uint8Array): void {
    for (let at = 0; at < bytes.length;) {
      const part = bytes.subarray(at, at + this.#size - this.#filled);
      if (this.#part !== 'content') this.#head.set(part, this.#filled);
      this.#filled += part.length;
      at += part.length;
      while (this.#filled === this.#size) this.#next();
    }
  }

  /** A part is complete. */
  #next(): void {
    const head = this.#head;
    switch (this.#part) {
      case 'magic': {
        const magic = head.readUInt32LE(0);
        if (magic === MAGIC) this.#expect('frame descriptor', 1);
        else if ((magic & ~15) === SKIPPABLE_MAGIC) this.#expect('skippable size', 4);
        // What it is, if not zstd, is for the decoder to say.
        else this.#expect('content', Infinity);
        return;
      }
      case 'skippable size':
        this.#descriptor = 0;
        this.#isLastBlock = true;
        this.#expect('content', head.readUInt32LE(0));
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
        const isRepeated = ((header >> 1) & 3) === RLE_BLOCK;
        this.#isLastBlock = (header & 1) === 1;
        const checksum = this.#isLastBlock && (this.#descriptor & 4) !== 0 ? 4 : 0;
        this.#expect('content', (isRepeated ? 1 : header >> 3) + checksum);
        return;
      }
      case 'content':
        if (this.#isLastBlock) this.#expect('magic', 4);
        else this.#expect('block header', 3);
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
