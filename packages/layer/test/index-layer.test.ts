import { expect } from 'chai';
import { deflateRawSync, gunzipSync, gzipSync } from 'node:zlib';
import { digestOf, isLayercacheError, type ErrorCode } from '@layercache/oci';
import { WINDOW_SIZE } from '../src/deflate/checkpoint.js';
import { indexLayer, type IndexLayerOptions } from '../src/index-layer.js';
import { readFile } from '../src/random-access.js';
import { decodeZtoc, encodeZtoc } from '../src/ztoc/ztoc-codec.js';
import { gzipVariants } from './deflate/gzip-streams.js';
import { membersOf, MemoryLayer, portionsOf, someTar } from './layers.js';
import { tar } from './tar/tar-builder.js';

/** zstd of "zstd layers" would need a compressor; this is one raw block per frame, as RFC 8878 allows. */
function zstdRaw(bytes: Uint8Array): Buffer {
  const frames = [...portionsOf(bytes, 100_000)].map((part) => {
    const header = Buffer.from([0x28, 0xb5, 0x2f, 0xfd, 0xa0, 0, 0, 0, 0, 0, 0, 0]);
    header.writeUInt32LE(part.length, 5);
    header.writeUIntLE((part.length << 3) | 1, 9, 3);
    return Buffer.concat([header, part]);
  });
  return Buffer.concat(frames);
}

async function failure(
  promise: Promise<unknown>,
): Promise<{ readonly code: ErrorCode; readonly message: string }> {
  try {
    await promise;
  } catch (error) {
    if (isLayercacheError(error)) return error;
    throw error;
  }
  throw new Error('nothing failed');
}

describe('indexing a layer', () => {
  const bytes = someTar();
  const options: IndexLayerOptions = { form: 'tar+gzip', spanSize: 100_000, workers: 0 };

  for (const [name, stream] of Object.entries(gzipVariants(bytes))) {
    it(`learns digest, diffID, files and checkpoints in one pass: ${name}`, async () => {
      const index = await indexLayer([stream], options);
      expect(index).to.deep.include({
        digest: digestOf(stream),
        size: stream.length,
        diffID: digestOf(bytes),
        tarSize: bytes.length,
      });
      const { ztoc } = index;
      expect(ztoc.entries).to.have.length(42);
      for (const entry of ztoc.entries.filter((each) => each.type === 'reg' && each.size > 0)) {
        expect(bytes.subarray(entry.offset - 512, entry.offset).toString('latin1')).to.match(
          new RegExp(`^${entry.name}\\0`),
        );
      }
      ztoc.checkpoints.forEach((checkpoint, number) => {
        const before = ztoc.checkpoints[number - 1];
        if (before !== undefined && checkpoint.output > 0) {
          expect(checkpoint.output - before.output).to.be.greaterThan(100_000);
        }
        const wanted = Buffer.concat([Buffer.alloc(WINDOW_SIZE), bytes.subarray(0, checkpoint.output)]);
        expect(wanted.subarray(-WINDOW_SIZE).equals(checkpoint.window)).to.equal(true);
        const end = ztoc.checkpoints[number + 1]?.input ?? stream.length;
        const start = checkpoint.bits === 0 ? checkpoint.input : checkpoint.input - 1;
        expect(ztoc.spanDigests[number]).to.equal(digestOf(stream.subarray(start, end)));
      });
    });
  }

  it('gives the same bytes whatever the portions and threads', async () => {
    // Large enough for a thread: more than a batch of 1 MiB.
    const stream = gzipSync(Buffer.concat([bytes, bytes, bytes]), { level: 1 });
    const whole = encodeZtoc((await indexLayer([stream], options)).ztoc);
    for (const size of [7777, 1 << 20]) {
      for (const workers of [0, 1] as const) {
        const index = await indexLayer(portionsOf(stream, size), { ...options, workers });
        expect(Buffer.compare(encodeZtoc(index.ztoc), whole)).to.equal(0);
      }
    }
  });

  it('indexes plain tars by spans of equal size', async () => {
    const { ztoc, digest, diffID } = await indexLayer(portionsOf(bytes, 3333), { ...options, form: 'tar' });
    expect(digest).to.equal(diffID);
    expect(ztoc.spanDigests).to.deep.equal([...portionsOf(bytes, 100_000)].map((part) => digestOf(part)));
    expect(ztoc.checkpoints).to.deep.equal([]);
  });

  it('indexes the tar inside a zstd layer of several frames', async () => {
    const stream = zstdRaw(bytes);
    const zstd = await indexLayer(portionsOf(stream, 3333), { ...options, form: 'tar+zstd' });
    const plain = await indexLayer([bytes], { ...options, form: 'tar' });
    expect(zstd).to.deep.equal({ ...plain, digest: digestOf(stream), size: stream.length });
  });

  it('hashes as the expected digests do', async () => {
    const stream = gzipSync(bytes);
    const digest = digestOf(stream, 'sha512');
    const diffID = digestOf(bytes, 'sha512');
    expect(await indexLayer([stream], { ...options, digest, diffID })).to.deep.include({ digest, diffID });
  });

  it('takes an empty layer', async () => {
    expect((await indexLayer([gzipSync('')], options)).ztoc.entries).to.deep.equal([]);
    expect((await indexLayer([], { ...options, form: 'tar' })).ztoc.spanDigests).to.deep.equal([]);
  });

  it('refuses bytes that are not the ones expected', async () => {
    const stream = gzipSync(bytes);
    const other = digestOf('other');
    expect((await failure(indexLayer([stream], { ...options, digest: other }))).code).to.equal(
      'DIGEST_MISMATCH',
    );
    expect((await failure(indexLayer([stream], { ...options, diffID: other }))).code).to.equal(
      'DIFFID_MISMATCH',
    );
  });

  for (const workers of [0, 1] as const) {
    it(`refuses damaged layers, with ${workers} threads`, async () => {
      const stream = gzipSync(Buffer.concat([bytes, bytes, bytes]), { level: 1 });
      const checksum = Buffer.from(stream);
      checksum[checksum.length - 6]! ^= 1;
      const wrong = await failure(indexLayer([checksum], { ...options, workers }));
      expect(wrong.code).to.equal('COMPRESSION_INVALID');
      expect(wrong.message).to.match(/incorrect data check/);
      const cut = await failure(indexLayer([stream.subarray(0, -20)], { ...options, workers }));
      expect(cut.code).to.equal('COMPRESSION_INVALID');
      expect(cut.message).to.match(/truncated: it ends at byte \d+/);
      const damaged = Buffer.from(stream);
      damaged.fill(0xff, 1_200_000, 1_200_100);
      expect((await failure(indexLayer([damaged], { ...options, workers }))).code).to.equal(
        'COMPRESSION_INVALID',
      );
    });

    it(`says each time that a gzip with garbage behind it is corrupt, with ${workers} threads`, async () => {
      const stream = Buffer.concat([gzipSync(bytes), Buffer.alloc(9 << 20, 0xff)]);
      for (const size of [70_001, 1 << 20, stream.length]) {
        const failed = await failure(indexLayer(portionsOf(stream, size), { ...options, workers }));
        expect(failed.code).to.equal('COMPRESSION_INVALID');
      }
    });

    it(`stops when the caller gives up, with ${workers} threads`, async () => {
      const controller = new AbortController();
      async function* endless(): AsyncGenerator<Uint8Array> {
        yield gzipSync(bytes).subarray(0, 100_000);
        setTimeout(() => {
          controller.abort();
        }, 20);
        await new Promise(() => undefined);
      }
      const failed = await failure(indexLayer(endless(), { ...options, workers, signal: controller.signal }));
      expect(failed.code).to.equal('ABORTED');
    });
  }

  it('passes an error of the source on as it is', async () => {
    const starts = { tar: bytes, 'tar+gzip': gzipSync(bytes), 'tar+zstd': zstdRaw(bytes) } as const;
    for (const form of ['tar', 'tar+gzip', 'tar+zstd'] as const) {
      function* broken(): Generator<Uint8Array> {
        yield starts[form].subarray(0, 1000);
        throw new Error('the disk is gone');
      }
      let message = '';
      await indexLayer(broken(), { ...options, form }).catch(
        (error: unknown) => (message = (error as Error).message),
      );
      expect(message).to.equal('the disk is gone');
    }
  });

  it('refuses what is not of the form it was said to be', async () => {
    expect((await failure(indexLayer([bytes], options))).code).to.equal('COMPRESSION_INVALID');
    expect((await failure(indexLayer([gzipSync(bytes)], { ...options, form: 'tar' }))).code).to.equal(
      'ARCHIVE_INVALID',
    );
    expect((await failure(indexLayer([bytes], { ...options, form: 'tar+zstd' }))).code).to.equal(
      'COMPRESSION_INVALID',
    );
    const cut = zstdRaw(bytes).subarray(0, -5);
    expect((await failure(indexLayer([cut], { ...options, form: 'tar+zstd' }))).code).to.equal(
      'COMPRESSION_INVALID',
    );
    expect((await failure(indexLayer([gzipSync(tar({ name: 'a', type: 'V' }))], options))).code).to.equal(
      'ARCHIVE_INVALID',
    );
    expect((await failure(indexLayer([], { ...options, spanSize: 0 }))).code).to.equal('USAGE');
  });

  it('keeps its memory flat when a layer expands a thousandfold', async () => {
    // 256 MiB of zeros, twice: enough to be seen, and quick.
    const zeros = gzipSync(Buffer.alloc(64 << 20), { level: 9 });
    const file = { name: 'zeros', size: 4 * (64 << 20) };
    const header = gzipSync(tar(file).subarray(0, 512));
    const stream = Buffer.concat([header, zeros, zeros, zeros, zeros, gzipSync(Buffer.alloc(1024))]);
    const before = process.memoryUsage().rss;
    const index = await indexLayer([stream], { form: 'tar+gzip', workers: 0 });
    expect(index.tarSize).to.equal(512 + file.size + 1024);
    expect(process.memoryUsage().rss - before).to.be.lessThan(150 << 20);
  });

  describe('of a hostile stream', () => {
    const header = gzipSync('').subarray(0, 10);
    const emptyStored = Buffer.from([0, 0, 0, 255, 255]);
    // Four blocks of ten bits.
    const emptyFixed = Buffer.from([0x02, 0x08, 0x20, 0x80, 0]);
    const content = tar({ name: 'f', data: 'x' });

    function behind(blocks: Buffer): Buffer {
      return Buffer.concat([header, blocks, deflateRawSync(content), gzipSync(content).subarray(-8)]);
    }

    const floods: Readonly<Record<string, Buffer>> = {
      'stored blocks': behind(Buffer.alloc(15_000, emptyStored)),
      'blocks of fixed codes': behind(Buffer.alloc(50_000, emptyFixed)),
      members: Buffer.concat([...Array.from({ length: 2000 }, () => gzipSync('')), gzipSync(content)]),
      'blocks behind the tar': Buffer.concat([
        gzipSync(content),
        header,
        Buffer.alloc(15_000, emptyStored),
        gzipSync('').subarray(10),
      ]),
    };
    for (const [name, stream] of Object.entries(floods)) {
      it(`has one checkpoint for an offset of the tar, however many empty ${name} there are`, async () => {
        expect(gunzipSync(stream).equals(content)).to.equal(true);
        const { ztoc } = await indexLayer([stream], { ...options, spanSize: 1 });
        const outputs = ztoc.checkpoints.map(({ output }) => output);
        expect(outputs).to.deep.equal(name === 'blocks behind the tar' ? [0, content.length] : [0]);
        const layer = { ztoc: decodeZtoc(encodeZtoc(ztoc)), bytes: new MemoryLayer(stream) };
        const pieces: Uint8Array[] = [];
        for await (const piece of readFile(layer, ztoc.entries[0]!)) pieces.push(piece as Uint8Array);
        expect(Buffer.concat(pieces).toString()).to.equal('x');
      });
    }

    it('has no more checkpoints than its compressed size allows, whatever the spans', async () => {
      // A block for each two bytes of output.
      const data = Buffer.alloc(40_000, 'ab');
      const archive = tar({ name: 'f', data });
      const blocks = [...portionsOf(archive, 2)].map((two) =>
        Buffer.concat([Buffer.from([0, 2, 0, 253, 255]), two]),
      );
      const stream = Buffer.concat([
        header,
        ...blocks,
        Buffer.from([1, 0, 0, 255, 255]),
        gzipSync(archive).subarray(-8),
      ]);
      const { ztoc } = await indexLayer([stream], { ...options, spanSize: 1 });
      expect(ztoc.checkpoints.length).to.be.greaterThan(30);
      expect(encodeZtoc(ztoc).length).to.be.lessThan(9 * stream.length);
      expect(decodeZtoc(encodeZtoc(ztoc)).checkpoints).to.have.length(ztoc.checkpoints.length);
    });
  });

  it('indexes members of a gzip as one stream', async () => {
    const stream = membersOf(bytes, 30);
    const { ztoc, diffID } = await indexLayer([stream], options);
    expect(diffID).to.equal(digestOf(bytes));
    expect(ztoc.checkpoints.length).to.be.greaterThan(5);
  });
});
