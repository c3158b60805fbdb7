import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from 'chai';
import { digestOf } from '@layercache/oci';
import { OciLayout, type OpenSource } from '../src/index.js';
import { failure, inLayout } from './scratch.js';

const bytes = Buffer.alloc(300_000, 'some bytes of a layer ');
const want = { digest: digestOf(bytes), size: bytes.length };

/** A source with ranges that counts what it gives, and breaks after `limit` bytes. */
function source(content: Buffer = bytes, limit = Infinity): OpenSource & { offsets: number[]; sent: number } {
  const open = Object.assign(
    (offset: number) => {
      open.offsets.push(offset);
      return Promise.resolve({ offset, body: body(offset) });
    },
    { offsets: [] as number[], sent: 0 },
  );
  async function* body(offset: number): AsyncGenerator<Uint8Array> {
    for (let at = offset; at < content.length; at += 10_000) {
      await Promise.resolve();
      if (open.sent >= limit) throw new Error('connection lost');
      const chunk = content.subarray(at, at + 10_000);
      open.sent += chunk.length;
      yield chunk;
    }
  }
  return open;
}

describe('ingesting a blob', () => {
  it('fetches it once, and not again', async () => {
    await inLayout(async (layout) => {
      const open = source();
      const progress: number[] = [];
      const done = await layout.ingest(want, open, { onProgress: (received) => progress.push(received) });
      expect(done).to.deep.equal({ size: bytes.length, fetched: bytes.length });
      expect(progress.at(-1)).to.equal(bytes.length);
      expect(await layout.ingest(want, open)).to.deep.equal({ size: bytes.length, fetched: 0 });
      expect(open.offsets).to.deep.equal([0]);
      expect(readFileSync(layout.blobPath(want.digest))).to.deep.equal(bytes);
    });
  });

  it('goes on where it stopped, also in a new handle', async () => {
    await inLayout(async (layout, dir) => {
      const broken = await failure(layout.ingest(want, source(bytes, 100_000)));
      expect(broken.message).to.equal('connection lost');
      await using other = await OciLayout.open(dir);
      const open = source();
      expect(await other.ingest(want, open)).to.deep.equal({ size: bytes.length, fetched: 200_000 });
      expect(open.offsets).to.deep.equal([100_000]);
      expect(readdirSync(join(dir, '.layercache/ingest'))).to.deep.equal([]);
    });
  });

  it('starts over when the source cannot start elsewhere', async () => {
    await inLayout(async (layout) => {
      await failure(layout.ingest(want, source(bytes, 100_000)));
      const open = source();
      const done = await layout.ingest(want, (_, signal) => open(0, signal));
      expect(done).to.deep.equal({ size: bytes.length, fetched: bytes.length });
    });
  });

  it('fetches the whole when the part it had was not the beginning', async () => {
    await inLayout(async (layout, dir) => {
      const partial = join(dir, '.layercache/ingest', `sha256-${want.digest.slice(7)}.partial`);
      writeFileSync(partial, Buffer.alloc(50_000, 'x'));
      const open = source();
      expect(await layout.ingest(want, open)).to.deep.equal({ size: bytes.length, fetched: 550_000 });
      expect(open.offsets).to.deep.equal([50_000, 0]);
      expect(readFileSync(layout.blobPath(want.digest))).to.deep.equal(bytes);
    });
  });

  it('publishes a part that turns out to be complete', async () => {
    await inLayout(async (layout, dir) => {
      writeFileSync(join(dir, '.layercache/ingest', `sha256-${want.digest.slice(7)}.partial`), bytes);
      const open = source();
      expect(await layout.ingest(want, open)).to.deep.equal({ size: bytes.length, fetched: 0 });
      expect(open.offsets).to.deep.equal([]);
    });
  });

  it('keeps a short answer as progress', async () => {
    await inLayout(async (layout) => {
      const error = await failure(layout.ingest(want, source(bytes.subarray(0, 120_000))));
      expect(error).to.include({ code: 'DIGEST_MISMATCH', expected: bytes.length, found: 120_000 });
      expect(await layout.ingest(want, source())).to.deep.equal({ size: bytes.length, fetched: 180_000 });
    });
  });

  it('refuses other bytes, and keeps nothing of them', async () => {
    await inLayout(async (layout) => {
      const other = Buffer.from(bytes).fill('x', 0, 1);
      expect(await failure(layout.ingest(want, source(other)))).to.include({ code: 'DIGEST_MISMATCH' });
      const longer = Buffer.concat([bytes, bytes]);
      expect(await failure(layout.ingest(want, source(longer)))).to.include({ code: 'DIGEST_MISMATCH' });
      expect(await layout.has(want.digest)).to.equal(false);
      const open = source();
      await layout.ingest(want, open);
      expect(open.offsets).to.deep.equal([0]);
    });
  });

  it('refuses a source that starts where nobody asked', async () => {
    await inLayout(async (layout) => {
      const open = source();
      expect(await failure(layout.ingest(want, (_, signal) => open(7, signal)))).to.include({
        code: 'USAGE',
      });
    });
  });

  it('takes a blob whose size is not known', async () => {
    await inLayout(async (layout) => {
      expect(await layout.ingest({ digest: want.digest }, source())).to.deep.equal({
        size: bytes.length,
        fetched: bytes.length,
      });
    });
  });

  it('is shared by those who want the same, and stopped when all gave up', async () => {
    await inLayout(async (layout) => {
      const open = source();
      const controller = new AbortController();
      const [first, second, third] = [
        layout.ingest(want, open),
        layout.ingest(want, open),
        failure(layout.ingest(want, open, { signal: controller.signal })),
      ];
      controller.abort();
      expect(await third).to.include({ code: 'ABORTED' });
      expect(await first).to.deep.equal(await second);
      expect(open.offsets).to.deep.equal([0]);
    });
  });

  it('keeps its progress when interrupted', async () => {
    await inLayout(async (layout, dir) => {
      const controller = new AbortController();
      const error = await failure(
        layout.ingest(want, source(), {
          signal: controller.signal,
          onProgress: (received) => {
            if (received >= 50_000) controller.abort();
          },
        }),
      );
      expect(error).to.include({ code: 'ABORTED' });
      expect(existsSync(join(dir, '.layercache/ingest', `sha256-${want.digest.slice(7)}.partial`))).to.equal(
        true,
      );
      const done = await layout.ingest(want, source());
      expect(done.fetched).to.equal(bytes.length - 50_000);
    });
  });

  it('waits for another handle that fetches the same, and finds the blob there', async () => {
    await inLayout(async (layout, dir) => {
      await using other = await OciLayout.open(dir);
      const [a, b] = [source(), source()];
      const done = await Promise.all([layout.ingest(want, a), other.ingest(want, b)]);
      expect(done.map(({ fetched }) => fetched).sort((x, y) => x - y)).to.deep.equal([0, bytes.length]);
      expect(a.offsets.length + b.offsets.length).to.equal(1);
      expect(readdirSync(join(dir, '.layercache/ingest'))).to.deep.equal([]);
    });
  });
});
