import { createHash } from 'node:crypto';
import {
  existsSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  statSync,
  truncateSync,
  unlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { Readable } from 'node:stream';
import { expect } from 'chai';
import { digestOf, type Digest } from '@layercache/oci';
import { OciLayout } from '../src/index.js';
import { blobOf, collect, digestNumber, failure, inLayout } from './scratch.js';

const bytes = Buffer.from('the bytes of a layer');
const digest = digestOf(bytes);

const ingestFolder = (dir: string): string[] => readdirSync(join(dir, '.layercache', 'ingest'));

describe('writing a blob', () => {
  it('stores it under its digest', async () => {
    await inLayout(async (layout, dir) => {
      expect(await layout.write(bytes)).to.deep.equal({ digest, size: bytes.length });
      expect(readFileSync(join(dir, 'blobs/sha256', digest.slice(7)))).to.deep.equal(bytes);
      expect(layout.blobPath(digest)).to.equal(join(dir, 'blobs/sha256', digest.slice(7)));
      expect(await layout.blobSize(digest)).to.equal(bytes.length);
      expect(ingestFolder(dir)).to.deep.equal([]);
    });
  });

  it('takes streams, iterables, and sha512', async () => {
    await inLayout(async (layout) => {
      const pieces = [bytes.subarray(0, 3), bytes.subarray(3)];
      expect(await layout.write(pieces)).to.deep.equal({ digest, size: bytes.length });
      expect(await layout.write(Readable.from(pieces))).to.deep.equal({ digest, size: bytes.length });
      const long = await layout.write(pieces, { algorithm: 'sha512' });
      expect(long.digest).to.equal(`sha512:${createHash('sha512').update(bytes).digest('hex')}`);
      expect(await layout.readBytes(long.digest)).to.deep.equal(bytes);
    });
  });

  for (const [what, want] of [
    ['another digest', { digest: digestNumber(1) }],
    ['fewer bytes', { digest, size: bytes.length + 1 }],
    ['more bytes', { digest, size: bytes.length - 1 }],
  ] as const) {
    it(`refuses ${what} than was said, and leaves nothing behind`, async () => {
      await inLayout(async (layout, dir) => {
        expect(await failure(layout.write(Readable.from([bytes]), want))).to.include({
          code: 'DIGEST_MISMATCH',
        });
        expect(await layout.has(digest)).to.equal(false);
        expect(ingestFolder(dir)).to.deep.equal([]);
      });
    });
  }

  it('does not rewrite what is there, nor read the source', async () => {
    await inLayout(async (layout) => {
      await layout.write(bytes);
      const before = statSync(layout.blobPath(digest)).ino;
      await layout.write(bytes);
      const source = Readable.from([bytes]);
      await layout.write(source, { digest, size: bytes.length });
      expect(source.destroyed).to.equal(true);
      expect(statSync(layout.blobPath(digest)).ino).to.equal(before);
    });
  });

  it('replaces a file of another size', async () => {
    await inLayout(async (layout) => {
      await layout.write(bytes);
      writeFileSync(layout.blobPath(digest), 'torn');
      expect(await layout.has(digest)).to.equal(true);
      expect(await layout.has(digest, bytes.length)).to.equal(false);
      await layout.write(bytes, { digest, size: bytes.length });
      expect(await layout.readBytes(digest)).to.deep.equal(bytes);
    });
  });

  it('stops when told to, also while the source is stuck', async () => {
    await inLayout(async (layout, dir) => {
      const controller = new AbortController();
      const stuck = new Readable({ read: () => undefined });
      stuck.push(bytes);
      const writing = failure(layout.write(stuck, { signal: controller.signal }));
      setTimeout(() => {
        controller.abort();
      }, 5);
      expect(await writing).to.include({ code: 'ABORTED' });
      expect(ingestFolder(dir)).to.deep.equal([]);
    });
  });
});

describe('reading a blob', () => {
  it('gives the whole, or a range', async () => {
    await inLayout(async (layout) => {
      await layout.write(bytes);
      expect(await collect(layout.read(digest))).to.deep.equal(bytes);
      expect(await collect(layout.read(digest, { start: 4, end: 9 }))).to.deep.equal(bytes.subarray(4, 9));
      expect(await collect(layout.read(digest, { start: 4 }))).to.deep.equal(bytes.subarray(4));
      expect(await collect(layout.read(digest, { start: 4, end: 999 }))).to.deep.equal(bytes.subarray(4));
    });
  });

  it('fails before the end when the bytes are not the digest, and drops entry and blob', async () => {
    await inLayout(async (layout) => {
      await layout.write(bytes);
      await layout.put(blobOf(bytes));
      writeFileSync(layout.blobPath(digest), Buffer.from(bytes).fill('x', 0, 1));
      let ended = false;
      const stream = layout.read(digest);
      stream.once('end', () => (ended = true));
      const error = await failure(collect(stream));
      expect(error).to.include({ code: 'DIGEST_MISMATCH', expected: digest });
      expect(ended).to.equal(false);
      expect(await layout.has(digest)).to.equal(false);
      expect(layout.lookup(digest)).to.deep.equal([]);
    });
  });

  for (const range of [
    { start: 0, end: 19 },
    { start: 2, end: 3 },
    { start: 15, end: 19 },
    { start: 15 },
    { end: 1 },
  ]) {
    it(`fails for bytes ${JSON.stringify(range)} of a blob that was cut short`, async () => {
      await inLayout(async (layout) => {
        await layout.write(bytes);
        await layout.put(blobOf(bytes));
        truncateSync(layout.blobPath(digest), 10);
        expect(await failure(collect(layout.read(digest, range)))).to.include({ code: 'DIGEST_MISMATCH' });
        expect(await layout.has(digest)).to.equal(false);
      });
    });
  }

  it('fails when the file is cut short while it is read', async () => {
    await inLayout(async (layout) => {
      const long = Buffer.alloc(1_000_000, 3);
      await layout.write(long);
      await layout.put(blobOf(long));
      const stream = await layout.openToRead(digestOf(long), { start: 1 });
      const reading = failure(
        (async () => {
          for await (const chunk of stream) {
            expect((chunk as Buffer).length).to.be.greaterThan(0);
            truncateSync(layout.blobPath(digestOf(long)), 10);
          }
        })(),
      );
      expect(await reading).to.include({ code: 'STORAGE' });
    });
  });

  it('puts right the size that an entry says, when a range is read and the bytes are right', async () => {
    await inLayout(async (layout) => {
      await layout.put({ ...blobOf(bytes), size: 10 });
      const path = layout.blobPath(digest);
      mkdirSync(dirname(path), { recursive: true });
      writeFileSync(path, bytes);
      expect(await collect(layout.read(digest, { start: 12 }))).to.deep.equal(bytes.subarray(12));
      expect(layout.lookup(digest)[0]!.descriptor.size).to.equal(bytes.length);
    });
  });

  it('of a size that was claimed, the bytes that come and what is put later know better', async () => {
    await inLayout(async (layout) => {
      await layout.put({ ...blobOf(bytes), size: 10 });
      await layout.write(bytes);
      const size = (): number => layout.lookup(digest)[0]!.descriptor.size;
      expect(size()).to.equal(bytes.length);
      await layout.put({ ...blobOf(bytes), size: 10, annotations: { note: 'a claim' } });
      expect(size()).to.equal(bytes.length);
    });
  });

  it('drops the file that was read, and not the good one that has taken its place', async () => {
    await inLayout(async (layout, dir) => {
      const path = layout.blobPath(digest);
      await layout.write(bytes);
      await layout.put(blobOf(bytes));
      writeFileSync(path, Buffer.from(bytes).fill('x', 0, 1));
      const slow = await layout.openToRead(digest);
      await using other = await OciLayout.open(dir);
      expect(await failure(collect(other.read(digest)))).to.include({ code: 'DIGEST_MISMATCH' });
      await other.write(bytes);
      await other.put(blobOf(bytes));
      expect(await failure(collect(slow))).to.include({ code: 'DIGEST_MISMATCH' });
      expect(await layout.readBytes(digest)).to.deep.equal(bytes);
      expect(layout.lookup(digest)).to.have.length(1);
    });
  });

  it('says when it is not here', async () => {
    await inLayout(async (layout) => {
      expect(await failure(collect(layout.read(digest)))).to.include({ code: 'NOT_FOUND' });
      expect(await failure(layout.readBytes(digest))).to.include({ code: 'NOT_FOUND' });
      expect(await layout.blobSize(digest)).to.equal(undefined);
    });
  });

  it('never leaves the folder, whatever the digest', async () => {
    await inLayout(async (layout) => {
      const path = 'sha256:../../oci-layout' as Digest;
      expect(() => layout.read(path))
        .to.throw()
        .with.property('code', 'DIGEST_INVALID');
      expect(() => layout.blobPath(path))
        .to.throw()
        .with.property('code', 'DIGEST_INVALID');
      expect(await failure(layout.has(path))).to.include({ code: 'DIGEST_INVALID' });
      expect(await failure(layout.write(bytes, { digest: path }))).to.include({ code: 'DIGEST_INVALID' });
      expect(await failure(layout.remove(path))).to.include({ code: 'DIGEST_INVALID' });
    });
  });

  it('stops when told to', async () => {
    await inLayout(async (layout) => {
      await layout.write(Buffer.alloc(1_000_000));
      const big = digestOf(Buffer.alloc(1_000_000));
      const aborted = layout.read(big, { signal: AbortSignal.abort() });
      expect(await failure(collect(aborted))).to.include({ code: 'ABORTED' });
      const controller = new AbortController();
      const stream = layout.read(big, { signal: controller.signal });
      stream.once('data', () => {
        controller.abort();
      });
      expect(await failure(collect(stream))).to.include({ code: 'ABORTED' });
    });
  });

  it('is stopped without harm when nobody has begun to read', async () => {
    await inLayout(async (layout) => {
      await layout.write(bytes);
      const controller = new AbortController();
      const stream = await layout.openToRead(digest, { signal: controller.signal });
      const closed = new Promise((resolve) => stream.once('close', resolve));
      controller.abort();
      await closed;
      expect(await failure(collect(stream))).to.include({ code: 'ABORTED' });
    });
  });

  it('refuses to hold a large blob as a document', async () => {
    await inLayout(async (layout) => {
      await layout.write(bytes);
      expect(await failure(layout.readBytes(digest, { maxSize: 3 }))).to.include({
        code: 'DOCUMENT_INVALID',
      });
    });
  });

  it('notes the access in the mtime, at most once an hour', async () => {
    await inLayout(async (layout) => {
      await layout.write(bytes);
      const path = layout.blobPath(digest);
      const minutesAgo = (minutes: number): Date => new Date(Date.now() - minutes * 60_000);
      utimesSync(path, minutesAgo(30), minutesAgo(30));
      await layout.readBytes(digest);
      expect(statSync(path).mtimeMs).to.be.lessThan(Date.now() - 29 * 60_000);
      utimesSync(path, minutesAgo(61), minutesAgo(61));
      await layout.readBytes(digest);
      expect(statSync(path).mtimeMs).to.be.greaterThan(Date.now() - 60_000);
    });
  });

  it('hands out nothing of a small corrupt blob, and not all of a large one', async () => {
    await inLayout(async (layout) => {
      for (const size of [1000, 3_000_000]) {
        const written = await layout.write(Buffer.alloc(size, 'abc'));
        writeFileSync(layout.blobPath(written.digest), Buffer.alloc(size, 'abd'));
        let received = 0;
        const reading = async (): Promise<void> => {
          for await (const chunk of layout.read(written.digest)) received += (chunk as Buffer).length;
        };
        const error = await failure(reading());
        expect(error.code).to.equal('DIGEST_MISMATCH');
        expect(received).to.be.lessThan(size);
      }
    });
  });

  it('goes on when the blob is removed meanwhile', async () => {
    await inLayout(async (layout) => {
      const big = Buffer.alloc(2_000_000, 'abc');
      const written = await layout.write(big);
      const stream = layout.read(written.digest);
      const iterator = stream[Symbol.asyncIterator]();
      const first = (await iterator.next()).value as Buffer;
      await layout.remove(written.digest);
      expect(existsSync(layout.blobPath(written.digest))).to.equal(false);
      const rest = await collect({ [Symbol.asyncIterator]: () => iterator });
      expect(Buffer.concat([first, rest])).to.deep.equal(big);
    });
  });
});

describe('temporary files', () => {
  it('of dead writers are gone at the next open; a living writer keeps its own', async () => {
    await inLayout(async (layout, dir) => {
      const { OciLayout } = await import('../src/index.js');
      const dead = join(dir, '.layercache/ingest/0123.tmp');
      writeFileSync(dead, 'half a blob');
      let release: (() => void) | undefined;
      async function* slow(): AsyncGenerator<Uint8Array> {
        yield bytes;
        await new Promise<void>((resolve) => (release = resolve));
      }
      const writing = layout.write(slow());
      while (release === undefined) await new Promise((resolve) => setTimeout(resolve, 2));
      await (await OciLayout.open(dir)).close();
      expect(existsSync(dead)).to.equal(false);
      release();
      expect(await writing).to.deep.equal({ digest, size: bytes.length });
      unlinkSync(layout.blobPath(digest));
    });
  });
});
