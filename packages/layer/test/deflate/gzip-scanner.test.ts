import { expect } from 'chai';
import fc from 'fast-check';
import { gzipSync } from 'node:zlib';
import { isLayercacheError } from '@layercache/oci';
import { WINDOW_SIZE } from '../../src/deflate/checkpoint.js';
import { GzipScanner, type BlockStart } from '../../src/deflate/gzip-scanner.js';
import { inflateFrom } from '../../src/deflate/restart.js';
import { compressible, gzipVariants } from './gzip-streams.js';

function scan(stream: Uint8Array, chunkSize = stream.length): { starts: BlockStart[]; output: number } {
  const starts: BlockStart[] = [];
  const scanner = new GzipScanner((start) => starts.push(start));
  for (let from = 0; from < stream.length; from += chunkSize)
    scanner.push(stream.subarray(from, from + chunkSize));
  scanner.finish();
  return { starts, output: scanner.output };
}

function windowAt(data: Uint8Array, output: number): Uint8Array {
  const window = new Uint8Array(WINDOW_SIZE);
  const from = Math.max(0, output - WINDOW_SIZE);
  window.set(data.subarray(from, output), WINDOW_SIZE - (output - from));
  return window;
}

describe('the gzip scanner', () => {
  const data = compressible(1_500_000);

  for (const [name, stream] of Object.entries(gzipVariants(data))) {
    it(`knows the length of the output without making it: ${name}`, () => {
      expect(scan(stream).output).to.equal(data.length);
    });

    it(`finds block starts at which inflation can be taken up: ${name}`, async () => {
      const { starts } = scan(stream);
      expect(starts[0]!.output).to.equal(0);
      const step = Math.ceil(starts.length / 25);
      for (const start of starts.filter((_, index) => index % step === 0)) {
        const checkpoint = { ...start, window: windowAt(data, start.output) };
        const rest = stream.subarray(start.bits === 0 ? start.input : start.input - 1);
        const wanted = data.subarray(start.output);
        const pieces: Uint8Array[] = [];
        for await (const piece of inflateFrom(checkpoint, rest)) pieces.push(piece);
        expect(wanted.equals(Buffer.concat(pieces))).to.equal(true);
      }
    });

    it(`finds the same whatever the size of the chunks: ${name}`, () => {
      const wanted = scan(stream);
      for (const size of [997, 4096, 70_001]) expect(scan(stream, size)).to.deep.equal(wanted);
    });
  }

  it('meets block starts at every bit of a byte', () => {
    const { starts } = scan(gzipSync(data, { memLevel: 1 }));
    expect(new Set(starts.map((start) => start.bits)).size).to.equal(8);
  });

  it('follows streams byte by byte', () => {
    const stream = gzipSync(data.subarray(0, 30_000), { memLevel: 2 });
    expect(scan(stream, 1)).to.deep.equal(scan(stream));
  });

  it('follows any bytes at any level', () => {
    fc.assert(
      fc.property(
        fc.uint8Array({ maxLength: 5000 }),
        fc.integer({ min: 0, max: 9 }),
        fc.integer({ min: 1, max: 6000 }),
        (bytes, level, chunkSize) => {
          expect(scan(gzipSync(bytes, { level }), chunkSize).output).to.equal(bytes.length);
        },
      ),
      { numRuns: 200 },
    );
  });

  it('refuses a stream that ends too early, wherever it ends', () => {
    const stream = gzipSync(data.subarray(0, 3000));
    for (let length = 0; length < stream.length; length++) {
      expect(() => scan(stream.subarray(0, length), 500), String(length)).to.throw(/is truncated/);
    }
  });

  it('says where a stream is corrupt', () => {
    const stream = gzipSync(data, { level: 0 });
    stream[11]! ^= 1;
    try {
      scan(stream);
      expect.fail('not refused');
    } catch (error) {
      expect(isLayercacheError(error, 'COMPRESSION_INVALID')).to.equal(true);
      expect((error as Error).message).to.match(/corrupt at byte 10: a stored block has a wrong length/);
    }
  });

  it('says the same again when it is given more of a stream that it has refused', () => {
    const scanner = new GzipScanner(() => undefined);
    const damaged = Buffer.concat([gzipSync('a'), Buffer.alloc(1 << 20, 0xff)]);
    for (let round = 0; round < 4; round++)
      expect(() => {
        scanner.push(damaged);
      }).to.throw(/at byte 21: there is no gzip/);
    expect(() => {
      scanner.finish();
    }).to.throw(/at byte 21: there is no gzip/);
  });

  it('refuses what is no gzip, or has another thing behind it', () => {
    expect(() => scan(Buffer.from('hello, layer'))).to.throw(/at byte 0: there is no gzip magic number/);
    expect(() => scan(Buffer.concat([gzipSync('a'), Buffer.from('rest')]))).to.throw(
      /at byte 21: there is no gzip/,
    );
    expect(() => scan(Buffer.from([0x1f, 0x8b, 7, 0, 0, 0, 0, 0, 0, 0]))).to.throw(/method is 7/);
    expect(() => scan(Buffer.from([0x1f, 0x8b, 8, 0xe0, 0, 0, 0, 0, 0, 0]))).to.throw(/reserved flags/);
  });

  /** A gzip header, then these bits. */
  function block(bits: string): Buffer {
    const bytes = bits.replaceAll(' ', '').match(/.{1,8}/g)!;
    const body = bytes.map((byte) => Number.parseInt(Array.from(byte.padEnd(8, '0')).reverse().join(''), 2));
    return Buffer.concat([gzipSync('').subarray(0, 10), Buffer.from(body), Buffer.alloc(64)]);
  }

  it('refuses blocks that zlib refuses', () => {
    expect(() => scan(block('1 11'))).to.throw(/reserved type 3/);
    expect(() => scan(block('1 01 11111 00000 0000'))).to.throw(/too many codes/);
    expect(() => scan(block('1 01 00000 00000 0000'))).to.throw(/code length code is not a complete/);
    // 0 and 16 have one bit each, and the first thing said is a repetition.
    expect(() => scan(block('1 01 00000 00000 0000 100 000 000 100 1'))).to.throw(/before the first/);
    // 18 and 0: 138 zeros twice is too many.
    expect(() => scan(block('1 01 00000 00000 0000 000 000 100 100 1 1111111 1 1111111'))).to.throw(
      /past the last/,
    );
    // 138 and 120 zeros: nothing can be said.
    expect(() => scan(block('1 01 00000 00000 0000 000 000 100 100 1 1111111 1 1011011'))).to.throw(
      /no end of block/,
    );
    // Fixed codes: 286 stands for nothing, and neither does distance 30.
    expect(() => scan(block('1 10 11000110'))).to.throw(/stands for nothing/);
    expect(() => scan(block('1 10 0000001 11110'))).to.throw(/stands for nothing/);
  });

  it('agrees with zlib on damaged streams: it never takes one that zlib refuses for its structure', () => {
    const stream = gzipSync(data.subarray(0, 20_000), { memLevel: 3 });
    fc.assert(
      fc.property(
        fc.integer({ min: 10, max: stream.length - 9 }),
        fc.integer({ min: 1, max: 255 }),
        (at, flip) => {
          const damaged = Buffer.from(stream);
          damaged[at]! ^= flip;
          let output = -1;
          try {
            output = scan(damaged, 777).output;
          } catch (error) {
            expect(isLayercacheError(error, 'COMPRESSION_INVALID')).to.equal(true);
          }
          expect(output).to.be.lessThan(20_000 * 300);
        },
      ),
      { numRuns: 300 },
    );
  });
});
