import { expect } from 'chai';
import fc from 'fast-check';
import type { Readable } from 'node:stream';
import { gzipSync } from 'node:zlib';
import { digestOf, isLayercacheError } from '@layercache/oci';
import { indexLayer } from '../src/index-layer.js';
import { decompressLayer, inflateLayer } from '../src/parallel-decompression.js';
import { readFile, readRange } from '../src/random-access.js';
import type { IndexedLayer } from '../src/spans.js';
import type { Ztoc } from '../src/ztoc/ztoc.js';
import { decodeZtoc, encodeZtoc } from '../src/ztoc/ztoc-codec.js';
import { compressible } from './deflate/gzip-streams.js';
import { membersOf, MemoryLayer, someTar } from './layers.js';
import { tar } from './tar/tar-builder.js';

const bytes = someTar();
const streams: Readonly<Record<string, Buffer>> = {
  'a gzip layer': gzipSync(bytes),
  'a gzip layer of small blocks': gzipSync(bytes, { memLevel: 1 }),
  'a gzip layer of many members': membersOf(bytes, 13),
  'a gzip layer with padding': Buffer.concat([gzipSync(bytes), Buffer.alloc(700)]),
  'a plain layer': bytes,
};

async function open(
  stream: Buffer,
  spanSize = 60_000,
): Promise<IndexedLayer & { readonly bytes: MemoryLayer }> {
  const form = stream === streams['a plain layer'] ? 'tar' : 'tar+gzip';
  const { ztoc } = await indexLayer([stream], { form, spanSize, workers: 0 });
  // As if it came from another machine.
  return { ztoc: decodeZtoc(encodeZtoc(ztoc)), bytes: new MemoryLayer(stream) };
}

async function all(stream: Readable): Promise<Buffer> {
  const pieces: Buffer[] = [];
  for await (const piece of stream) pieces.push(piece as Buffer);
  return Buffer.concat(pieces);
}

async function codeOf(stream: Readable): Promise<string | undefined> {
  try {
    await all(stream);
  } catch (error) {
    return isLayercacheError(error) ? error.code : String(error);
  }
  return undefined;
}

describe('random access', () => {
  for (const [name, stream] of Object.entries(streams)) {
    it(`reads any range of ${name}`, async () => {
      const layer = await open(stream);
      const offset = fc.integer({ min: 0, max: bytes.length });
      await fc.assert(
        fc.asyncProperty(offset, offset, async (a, b) => {
          const [start, end] = a < b ? [a, b] : [b, a];
          expect((await all(readRange(layer, start, end))).equals(bytes.subarray(start, end))).to.equal(true);
        }),
        { numRuns: 40, examples: [[0, bytes.length]] },
      );
    });

    it(`reads only the spans of ${name} that a file lies in`, async () => {
      const layer = await open(stream);
      for (const entry of layer.ztoc.entries) {
        layer.bytes.reads.length = 0;
        const content = await all(readFile(layer, entry));
        expect(content.equals(bytes.subarray(entry.offset, entry.offset + entry.size))).to.equal(true);
        if (entry.size < 60_000) expect(layer.bytes.reads.length).to.be.at.most(2);
        if (entry.size === 0) expect(layer.bytes.reads).to.deep.equal([]);
      }
    });

    it(`decompresses ${name} in parallel, to the same bytes`, async () => {
      const layer = await open(stream);
      for (const concurrency of [1, 2, 5]) {
        const output = await all(decompressLayer(layer, { diffID: digestOf(bytes), concurrency }));
        expect(output.equals(bytes)).to.equal(true);
      }
    });
  }

  it('restores the holes of a sparse file', async () => {
    const archive = tar({
      name: 's',
      data: 'abcdefg',
      pax: { 'GNU.sparse.size': '70000', 'GNU.sparse.map': '5,3,1000,4' },
    });
    const layer = await open(gzipSync(archive));
    const wanted = Buffer.alloc(70_000);
    wanted.write('abc', 5);
    wanted.write('defg', 1000);
    expect((await all(readFile(layer, layer.ztoc.entries[0]!))).equals(wanted)).to.equal(true);
  });

  it('reads each span of a sparse file once, however many segments it has', async () => {
    const count = 20_000;
    const map = Array.from({ length: count }, (_, index) => `${index * 3},2`).join(',');
    const archive = tar({
      name: 's',
      data: Buffer.alloc(count * 2, 'ab'),
      pax: { 'GNU.sparse.size': String(count * 3), 'GNU.sparse.map': map },
    });
    const layer = await open(gzipSync(archive, { memLevel: 1 }), 10_000);
    layer.bytes.reads.length = 0;
    const content = await all(readFile(layer, layer.ztoc.entries[0]!));
    expect(content.equals(Buffer.alloc(count * 3, 'ab\0'))).to.equal(true);
    expect(layer.bytes.reads.length).to.be.at.most(layer.ztoc.checkpoints.length);
  });

  it('hands nothing over from a span that is not what was indexed', async () => {
    const stream = gzipSync(bytes);
    const { ztoc } = await open(stream);
    const damaged = Buffer.from(stream);
    damaged[ztoc.checkpoints[2]!.input + 100]! ^= 1;
    const layer = { ztoc, bytes: new MemoryLayer(damaged) };
    const { output } = ztoc.checkpoints[2]!;
    expect(await codeOf(readRange(layer, 0, output))).to.equal(undefined);
    expect(await codeOf(readRange(layer, output, output + 1))).to.equal('DIGEST_MISMATCH');
  });

  it('refuses a layer that is shorter than its index, and ranges that are none', async () => {
    const stream = gzipSync(bytes);
    const { ztoc } = await open(stream);
    const layer = { ztoc, bytes: new MemoryLayer(stream.subarray(0, -4000)) };
    layer.bytes.read = function* (start, end) {
      yield stream.subarray(start, Math.min(end, stream.length - 4000));
    };
    expect(await codeOf(readRange(layer, bytes.length - 10, bytes.length))).to.equal('COMPRESSION_INVALID');
    const whole = { ztoc, bytes: new MemoryLayer(stream) };
    expect(await codeOf(readRange(whole, 0, bytes.length + 1))).to.equal('COMPRESSION_INVALID');
    expect(await codeOf(readRange(whole, 5, 4))).to.equal('USAGE');
  });

  it('refuses an index whose checkpoints lie about the output', async () => {
    const stream = gzipSync(bytes);
    const { ztoc } = await open(stream);
    const checkpoints = ztoc.checkpoints.map((each, index) =>
      index < 3 ? each : { ...each, output: each.output + 1 },
    );
    const layer = { ztoc: { ...ztoc, checkpoints }, bytes: new MemoryLayer(stream) };
    expect(await codeOf(readRange(layer, 0, bytes.length - 1))).to.equal('COMPRESSION_INVALID');
    const other = await codeOf(decompressLayer(layer, { diffID: digestOf(bytes), concurrency: 2 }));
    expect(other).to.equal('COMPRESSION_INVALID');
  });

  it('stops when the caller gives up', async () => {
    const layer = await open(gzipSync(bytes));
    const signal = AbortSignal.abort();
    expect(await codeOf(readRange(layer, 0, 100_000, { signal }))).to.equal('ABORTED');
    expect(await codeOf(decompressLayer(layer, { diffID: digestOf(bytes), signal }))).to.equal('ABORTED');
  });
});

describe('the window of a checkpoint', () => {
  const stream = gzipSync(bytes, { memLevel: 1 });

  /** The layer with an index in which one byte of a window is another one. */
  function withWrongWindow(ztoc: Ztoc, number: number, at: number): IndexedLayer {
    const checkpoints = ztoc.checkpoints.map((checkpoint, index) => {
      const window = Buffer.from(checkpoint.window);
      if (index === number) window[at]! ^= 0x20;
      return { ...checkpoint, window };
    });
    return { ztoc: { ...ztoc, checkpoints }, bytes: new MemoryLayer(stream) };
  }

  async function collect(pieces: AsyncIterable<Uint8Array>): Promise<Buffer> {
    const all: Uint8Array[] = [];
    for await (const piece of pieces) all.push(piece);
    return Buffer.concat(all);
  }

  it('is checked against the output before it, wherever it is wrong', async () => {
    const { ztoc } = await open(stream, 40_000);
    const { checkpoints } = ztoc;
    await fc.assert(
      fc.asyncProperty(
        fc.integer({ min: 1, max: checkpoints.length - 1 }),
        fc.integer({ min: 0, max: 32_767 }),
        fc.nat({ max: 30_000 }),
        async (number, at, before) => {
          const layer = withWrongWindow(ztoc, number, at);
          const { output } = checkpoints[number]!;
          const parallel = await collect(inflateLayer(layer, { concurrency: 2 })).catch(
            (error: unknown) => error,
          );
          expect(isLayercacheError(parallel, 'COMPRESSION_INVALID'), String(parallel)).to.equal(true);
          // Whole spans are inflated, so what lies before the range is known as well.
          const start = Math.max(0, output - 1 - before);
          expect(await codeOf(readRange(layer, start, output + 1))).to.equal('COMPRESSION_INVALID');
          expect(await codeOf(readRange(layer, start, output))).to.equal(undefined);
        },
      ),
      { numRuns: 15 },
    );
  });

  it('may be anything before the first byte of the tar', async () => {
    const layer = withWrongWindow((await open(stream)).ztoc, 0, 7);
    expect((await collect(inflateLayer(layer))).equals(bytes)).to.equal(true);
  });

  it('is checked across spans that are shorter than it', async () => {
    const short = membersOf(bytes, 200);
    const { ztoc } = await open(short, 1000);
    expect(
      ztoc.checkpoints.some(
        ({ output }, at) => (ztoc.checkpoints[at + 1]?.output ?? Infinity) - output < 20_000,
      ),
    ).to.equal(true);
    expect((await collect(inflateLayer({ ztoc, bytes: new MemoryLayer(short) }))).equals(bytes)).to.equal(
      true,
    );
  });
});

describe('parallel decompression', () => {
  it('ends with an error when a span is corrupt, whatever comes before it', async () => {
    const stream = gzipSync(bytes);
    const { ztoc } = await open(stream);
    const damaged = Buffer.from(stream);
    damaged.fill(0xff, ztoc.checkpoints[3]!.input + 50, ztoc.checkpoints[3]!.input + 90);
    const layer = { ztoc, bytes: new MemoryLayer(damaged) };
    const code = await codeOf(decompressLayer(layer, { diffID: digestOf(bytes), concurrency: 2 }));
    expect(code).to.be.oneOf(['COMPRESSION_INVALID', 'DIFFID_MISMATCH']);
  });

  it('keeps the last piece back until the whole has been verified', async () => {
    for (const stream of [streams['a gzip layer']!, bytes]) {
      const layer = await open(stream);
      let seen = 0;
      let code: string | undefined;
      try {
        for await (const piece of decompressLayer(layer, { diffID: digestOf('another') })) {
          seen += (piece as Buffer).length;
        }
      } catch (error) {
        code = isLayercacheError(error) ? error.code : String(error);
      }
      expect(code).to.equal('DIFFID_MISMATCH');
      expect(seen).to.be.lessThan(bytes.length);
    }
  });

  it('reads only a few spans ahead of a slow consumer', async () => {
    const layer = await open(gzipSync(bytes), 20_000);
    const iterator = decompressLayer(layer, { diffID: digestOf(bytes), concurrency: 2 })[
      Symbol.asyncIterator
    ]();
    await iterator.next();
    await new Promise((resolve) => setTimeout(resolve, 100));
    expect(layer.ztoc.checkpoints.length).to.be.greaterThan(24);
    expect(layer.bytes.reads.length).to.be.at.most(12);
    await iterator.return?.();
  });

  it('streams spans that are too large to be held', async () => {
    const zeros = Buffer.alloc(24 << 20);
    const archive = tar({ name: 'zeros', data: zeros }, { name: 'b', data: 'b' });
    const layer = await open(gzipSync(archive), 18 << 20);
    expect(layer.ztoc.checkpoints.length).to.be.greaterThan(1);
    const output = await all(decompressLayer(layer, { diffID: digestOf(archive), concurrency: 2 }));
    expect(output.equals(archive)).to.equal(true);
  });
});

describe('a layer that does not come apart', () => {
  it('is indexed and decompressed as a stream, and not read at random', async () => {
    // 66 MiB in one span, behind which there is padding.
    const content = Buffer.alloc(66 << 20, compressible(1 << 20));
    const archive = tar({ name: 'big', data: content });
    const stream = Buffer.concat([gzipSync(archive, { level: 0 }), Buffer.alloc(5 << 20)]);
    const layer = await open(stream, 70 << 20);
    expect(layer.ztoc.checkpoints).to.have.length(1);
    expect(await codeOf(readRange(layer, 0, 10))).to.equal('UNSUPPORTED');
    let size = 0;
    for await (const piece of decompressLayer(layer, { diffID: digestOf(archive) }))
      size += (piece as Buffer).length;
    expect(size).to.equal(archive.length);
  });
});
