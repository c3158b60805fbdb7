import { randomBytes } from 'node:crypto';
import { readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { digestOf } from '@layercache/oci';
import { expect } from 'chai';
import fc from 'fast-check';
import { OciLayout, nodeFileSystem, type StagedBlob } from '../src/index.js';
import { folderSize } from '../src/space/folder-size.js';
import { collect, failure, inLayout, inScratch } from './scratch.js';
import { CountingDisk } from './space/counting-disk.js';

const MiB = 1024 * 1024;

async function* chunks(...all: readonly Uint8Array[]): AsyncGenerator<Uint8Array> {
  yield* all;
  await Promise.resolve();
}

/** A source that fails after its chunks, as a connection that breaks. */
async function* broken(...all: readonly Uint8Array[]): AsyncGenerator<Uint8Array> {
  yield* chunks(...all);
  throw new Error('the line broke');
}

async function stagedWith(layout: OciLayout, bytes: Uint8Array): Promise<StagedBlob> {
  const staged = await layout.stage();
  await staged.append(chunks(bytes));
  return staged;
}

describe('a blob that is staged', () => {
  it('becomes a blob without a copy, whatever pieces it came in', () =>
    inLayout(async (layout, dir) => {
      await fc.assert(
        fc.asyncProperty(
          fc.array(fc.uint8Array({ maxLength: 2000 }), { maxLength: 6 }),
          fc.constantFrom('sha256' as const, 'sha512' as const),
          async (pieces, algorithm) => {
            const staged = await layout.stage();
            for (const [n, piece] of pieces.entries()) {
              await staged.append(chunks(piece), n % 2 === 0 ? {} : { length: piece.length });
            }
            const bytes = Buffer.concat(pieces);
            const digest = digestOf(bytes, algorithm);
            expect((await collect(staged.read())).equals(bytes)).to.equal(true);
            await staged.commit({ digest, size: bytes.length });
            expect((await collect(layout.read(digest))).equals(bytes)).to.equal(true);
          },
        ),
        { numRuns: 40 },
      );
      expect(readdirSync(join(dir, '.layercache', 'ingest'))).to.deep.equal([]);
    }));

  it('keeps the bytes that came before its source failed', () =>
    inLayout(async (layout) => {
      const bytes = randomBytes(300_000);
      const staged = await layout.stage();
      const error = await failure(staged.append(broken(bytes.subarray(0, 100_000))));
      expect(error.message).to.equal('the line broke');
      expect(staged.size).to.equal(100_000);
      await staged.append(chunks(bytes.subarray(100_000)));
      await staged.commit({ digest: digestOf(bytes), size: bytes.length });
      expect((await collect(layout.read(digestOf(bytes)))).equals(bytes)).to.equal(true);
    }));

  it('is no blob when its bytes are others, and leaves nothing when it is discarded', () =>
    inLayout(async (layout, dir) => {
      for (const algorithm of ['sha256', 'sha512'] as const) {
        const staged = await stagedWith(layout, Buffer.from('one'));
        const digest = digestOf('two', algorithm);
        expect((await failure(staged.commit({ digest, size: 3 }))).code).to.equal('DIGEST_MISMATCH');
        expect(await layout.has(digest)).to.equal(false);
        await staged.discard();
      }
      expect(readdirSync(join(dir, '.layercache', 'ingest'))).to.deep.equal([]);
    }));

  it('is removed when its process is gone, and not while it lives', () =>
    inScratch(async (dir) => {
      const layout = await OciLayout.open(dir);
      const ingest = join(dir, '.layercache', 'ingest');
      const staged = await stagedWith(layout, Buffer.from('alive'));
      writeFileSync(join(ingest, 'abc.upload'), 'left by the dead');
      const other = await OciLayout.open(dir);
      expect(readdirSync(ingest)).to.have.length(1);
      expect(await other.dropStaged(60_000)).to.equal(false);
      await staged.append(chunks(Buffer.from(' and well')));
      const bytes = Buffer.from('alive and well');
      await staged.commit({ digest: digestOf(bytes), size: bytes.length });
      await other.close();
      await layout.close();
    }));

  it('is given up for room by any process while it is idle, the one idle for longest first', () =>
    inScratch(async (dir) => {
      const layout = await OciLayout.open(dir);
      const first = await stagedWith(layout, Buffer.from('first'));
      const second = await stagedWith(layout, Buffer.from('second'));
      const other = await OciLayout.open(dir);
      let busy: Promise<void> | undefined;
      let go = (): void => undefined;
      const waiting = new Promise<void>((resolve) => (go = resolve));
      const entered = new Promise<void>((resolve) => {
        busy = second.append(
          (async function* () {
            resolve();
            await waiting;
            yield Buffer.from(' more');
          })(),
        );
      });
      await entered;
      expect(await other.dropStaged(0)).to.equal(true);
      expect(await other.dropStaged(0)).to.equal(false);
      go();
      await busy;
      expect((await failure(first.append(chunks(Buffer.from('x'))))).code).to.equal('NOT_FOUND');
      expect((await failure(first.commit({ digest: digestOf('first'), size: 5 }))).code).to.equal(
        'NOT_FOUND',
      );
      await first.discard();
      await second.commit({ digest: digestOf('second more'), size: 11 });
      await other.close();
      await layout.close();
    }));

  it('counts towards the limit at every instant, and gives all of it back', () =>
    inScratch(async (dir) => {
      const disk = new CountingDisk(dir);
      const layout = await OciLayout.open(dir, { limits: { maxSize: 2 * MiB }, files: disk.files });
      const before = await layout.spaceTaken();
      const small = await stagedWith(layout, randomBytes(300_000));
      expect(await layout.spaceTaken()).to.be.at.least(300_000);
      expect(folderSize(nodeFileSystem, dir)).to.be.at.least(300_000);
      for (const options of [{}, { length: 20 * MiB }]) {
        const large = await layout.stage();
        let taken = 0;
        const endless = (async function* (): AsyncGenerator<Uint8Array> {
          for (; taken < 20 * MiB; taken += 64 * 1024) yield Buffer.alloc(64 * 1024);
          await Promise.resolve();
        })();
        expect((await failure(large.append(endless, options))).code).to.equal('CACHE_FULL');
        expect(taken).to.be.below(3 * MiB);
        // Bytes that were hashed and not written cannot be followed by others.
        const next = large.append(chunks(Buffer.from('x')));
        if ('length' in options) await next;
        else expect((await failure(next)).code).to.equal('NOT_FOUND');
        await large.discard();
      }
      await small.discard();
      expect(disk.most).to.be.at.most(2 * MiB);
      expect(Math.abs((await layout.spaceTaken())! - before!)).to.be.below(100_000);
      // All the room is there for one that fits.
      const bytes = randomBytes(1.5 * MiB);
      const whole = await stagedWith(layout, bytes);
      await whole.commit({ digest: digestOf(bytes), size: bytes.length });
      await layout.close();
    }));
});
