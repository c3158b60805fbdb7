import { expect } from 'chai';
import fc from 'fast-check';
import { isLayercacheError } from '@layercache/oci';
import { decompressZstd } from '../src/zstd.js';
import { MAX_ZSTD_WINDOW, ZstdWindows } from '../src/zstd-windows.js';

const MAGIC = Buffer.from([0x28, 0xb5, 0x2f, 0xfd]);
const SKIPPABLE = Buffer.from([0x53, 0x2a, 0x4d, 0x18, 5, 0, 0, 0, 1, 2, 3, 4, 5]);

const rawBlock = (bytes: Buffer, isLast: boolean): Buffer => {
  const header = Buffer.alloc(3);
  header.writeUIntLE((isLast ? 1 : 0) | (bytes.length << 3), 0, 3);
  return Buffer.concat([header, bytes]);
};

/** A block that stands for one byte many times. */
const repeated = (byte: number, size: number, isLast: boolean): Buffer => {
  const header = Buffer.alloc(4, byte);
  header.writeUIntLE((isLast ? 1 : 0) | 2 | (size << 3), 0, 3);
  return header;
};

/** A frame with a window of 2 ** `exponent` bytes and more, in eighths. */
const windowed = (exponent: number, eighths: number, ...blocks: readonly Buffer[]): Buffer =>
  Buffer.concat([MAGIC, Buffer.from([0, ((exponent - 10) << 3) | eighths]), ...blocks]);

const single = (size: bigint, ...blocks: readonly Buffer[]): Buffer => {
  const header = Buffer.alloc(9, 0xe0);
  header.writeBigUInt64LE(size, 1);
  return Buffer.concat([MAGIC, header, ...blocks]);
};

async function decompressed(stream: Buffer, step: number): Promise<Buffer> {
  const portions = async function* (): AsyncGenerator<Uint8Array> {
    for (let at = 0; at < stream.length; at += step)
      yield await Promise.resolve(stream.subarray(at, at + step));
  };
  const pieces: Uint8Array[] = [];
  for await (const piece of decompressZstd(portions())) pieces.push(Buffer.from(piece));
  return Buffer.concat(pieces);
}

describe('a zstd stream', () => {
  const hello = Buffer.from('hello');
  const good = Buffer.concat([
    windowed(17, 0, rawBlock(hello, false), repeated(0x61, 3, true)),
    SKIPPABLE,
    single(5n, rawBlock(hello, true)),
    windowed(10, 3, rawBlock(Buffer.alloc(0), true)),
    windowed(27, 0, rawBlock(hello, true)),
  ]);

  it('is decompressed frame by frame, in whatever portions it comes', async () => {
    for (const step of [1, 2, 3, 7, 1000])
      expect((await decompressed(good, step)).toString()).to.equal('helloaaahellohello');
  });

  it('whose frames want a window that is too large is refused, whichever frame it is', async () => {
    const hostile = [
      windowed(27, 1, rawBlock(hello, true)),
      windowed(41, 7, rawBlock(hello, true)),
      windowed(31, 0, rawBlock(hello, true)),
      single(BigInt(MAX_ZSTD_WINDOW) + 1n, rawBlock(hello, true)),
      single(2n ** 64n - 1n, rawBlock(hello, true)),
    ];
    for (const frame of hostile) {
      for (const stream of [frame, Buffer.concat([good, frame]), Buffer.concat([SKIPPABLE, frame])]) {
        for (const step of [1, 5, 1000]) {
          try {
            await decompressed(stream, step);
            expect.fail('it was decompressed');
          } catch (error) {
            expect(isLayercacheError(error, 'COMPRESSION_INVALID'), String(error)).to.equal(true);
            expect(String(error)).to.contain('window');
          }
        }
      }
    }
  });

  it('is followed across blocks and checksums to the next frame', () => {
    const checked = Buffer.concat([
      MAGIC,
      Buffer.from([4 | 1, 0, 99]),
      repeated(7, 100_000, false),
      rawBlock(hello, true),
      Buffer.from('sums'),
    ]);
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 40 }), fc.integer({ min: 1, max: 4 }), (step, frames) => {
        const stream = Buffer.concat([
          ...Array.from({ length: frames }, () => checked),
          windowed(30, 0, rawBlock(hello, true)),
        ]);
        const windows = new ZstdWindows();
        const push = (): void => {
          for (let at = 0; at < stream.length; at += step) windows.push(stream.subarray(at, at + step));
        };
        expect(push).to.throw('window');
      }),
    );
  });

  it('that is none is left to the decoder to refuse', () => {
    fc.assert(
      fc.property(fc.uint8Array({ minLength: 4 }), (bytes) => {
        const stream = Buffer.concat([Buffer.from('tar!'), bytes]);
        expect(() => {
          new ZstdWindows().push(stream);
        }).not.to.throw();
      }),
    );
  });
});
