import { expect } from 'chai';
import fc from 'fast-check';
import { Readable } from 'node:stream';
import { isLayercacheError } from '@layercache/oci';
import { decompressZstd } from '../../src/zstd/decompress-zstd.js';
import { ZSTD_SAMPLE } from './zstd-sample.js';
import { MAX_ZSTD_WINDOW } from '../../src/zstd/zstd-frames.js';

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

  it('with a checksum is decompressed, in whatever portions it comes', async () => {
    for (const step of [1, 17, 100_000]) {
      const output = await decompressed(
        Buffer.concat([ZSTD_SAMPLE.bytes, SKIPPABLE, ZSTD_SAMPLE.bytes]),
        step,
      );
      expect(output.equals(Buffer.concat([ZSTD_SAMPLE.content, ZSTD_SAMPLE.content]))).to.equal(true);
    }
  });

  async function refusal(stream: Buffer, step = 1000): Promise<string> {
    try {
      await decompressed(stream, step);
    } catch (error) {
      if (isLayercacheError(error, 'COMPRESSION_INVALID')) return error.message;
      throw error;
    }
    return 'nothing';
  }

  it('with a wrong checksum is refused, whichever frame it is', async () => {
    for (let at = 1; at <= 4; at++) {
      const damaged = Buffer.from(ZSTD_SAMPLE.bytes);
      damaged[damaged.length - at]! ^= 1;
      for (const stream of [damaged, Buffer.concat([ZSTD_SAMPLE.bytes, damaged, ZSTD_SAMPLE.bytes])]) {
        for (const step of [1, 3, 100_000])
          expect(await refusal(stream, step)).to.match(/the checksum of a frame is wrong/);
      }
    }
  });

  it('that ends inside a frame is refused, wherever it ends', async () => {
    for (
      let length = 1;
      length < ZSTD_SAMPLE.bytes.length;
      length += length < 20 || length > ZSTD_SAMPLE.bytes.length - 20 ? 1 : 97
    )
      expect(await refusal(ZSTD_SAMPLE.bytes.subarray(0, length)), String(length)).to.match(/corrupt/);
  });

  it('is followed across blocks and checksums to the next frame', async () => {
    const checked = Buffer.concat([
      MAGIC,
      Buffer.from([1, 0, 99]),
      repeated(7, 1000, false),
      rawBlock(hello, true),
    ]);
    await fc.assert(
      fc.asyncProperty(
        fc.integer({ min: 1, max: 40 }),
        fc.integer({ min: 1, max: 4 }),
        async (step, frames) => {
          const good = [...Array.from({ length: frames }, () => [checked, ZSTD_SAMPLE.bytes]).flat()];
          const stream = Buffer.concat([...good, windowed(30, 0, rawBlock(hello, true))]);
          expect(await refusal(stream, step)).to.contain('window');
        },
      ),
      { numRuns: 10 },
    );
  });

  it('that is none, or has another thing behind it, is refused', async () => {
    expect(await refusal(Buffer.from('a tar, perhaps'))).to.match(/there is no zstd frame/);
    expect(await refusal(Buffer.concat([good, Buffer.from('rest')]))).to.match(/there is no zstd frame/);
    expect(await refusal(Buffer.concat([good, Buffer.from('r')]))).to.match(/ends inside a frame/);
  });

  it('has no block that is larger than any', async () => {
    expect(await refusal(windowed(27, 0, repeated(0, (128 << 10) + 1, true)))).to.match(/larger than 131072/);
    expect(await refusal(windowed(27, 0, Buffer.from([7, 0, 0])))).to.match(/reserved type 3/);
  });

  it('hands over its output block by block, however much a few bytes stand for', async () => {
    // 64 KiB that stand for 2 GiB: all of it at once would be too much.
    const blocks = Buffer.alloc(64 << 10, repeated(0, 128 << 10, false));
    let pieces = 0;
    for await (const piece of decompressZstd(Readable.from([windowed(17, 0, blocks)]))) {
      expect(piece.length).to.be.at.most(128 << 10);
      pieces++;
      if (pieces === 100) break;
    }
    expect(process.memoryUsage().arrayBuffers).to.be.lessThan(500 << 20);
  });

  it('of millions of tiny frames is not too deep', async () => {
    const tiny = windowed(10, 0, rawBlock(Buffer.from('x'), true));
    const output = await decompressed(Buffer.alloc(20_000 * tiny.length, tiny), 1 << 20);
    expect(output.toString()).to.equal('x'.repeat(20_000));
  });
});
