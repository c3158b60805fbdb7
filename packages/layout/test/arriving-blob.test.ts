import { mkdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { randomBytes } from 'node:crypto';
import { Readable } from 'node:stream';
import { expect } from 'chai';
import { LayercacheError, digestHex, digestOf } from '@layercache/oci';
import type { IngestOptions, OciLayout, OpenSource } from '../src/index.js';
import { collect, failure, inLayout } from './scratch.js';

const bytes = randomBytes(2_000_000);
const want = { digest: digestOf(bytes), size: bytes.length };

/** A source whose body waits at an offset until it is let go on. */
function gated(at: number): { open: OpenSource; go: () => void; opened: number[] } {
  let go: () => void = () => undefined;
  const gate = new Promise<void>((resolve) => (go = resolve));
  const opened: number[] = [];
  async function* body(offset: number): AsyncGenerator<Uint8Array> {
    for (let position = offset; position < bytes.length; position += 50_000) {
      if (position >= at) await gate;
      yield bytes.subarray(position, position + 50_000);
    }
  }
  return {
    open: (offset) => {
      opened.push(offset);
      return Promise.resolve({ offset, body: body(offset) });
    },
    go,
    opened,
  };
}

const fetching =
  (layout: OciLayout, open: OpenSource) =>
  (options: IngestOptions): Promise<unknown> =>
    layout.ingest(want, open, options);

describe('reading a blob while it arrives', () => {
  it('gives what is there, and the end when all of it is right', async () => {
    await inLayout(async (layout) => {
      const { open, go } = gated(1_500_000);
      const stream = await layout.readArriving(want, fetching(layout, open));
      const got: Buffer[] = [];
      for await (const chunk of stream) {
        got.push(chunk as Buffer);
        if (got.length === 1) expect(await layout.has(want.digest)).to.equal(false);
        go();
      }
      expect(Buffer.concat(got).equals(bytes)).to.equal(true);
      expect(await layout.has(want.digest, want.size)).to.equal(true);
    });
  });

  it('gives a blob that is here already, and an empty one', async () => {
    await inLayout(async (layout) => {
      await layout.write(bytes);
      const never: OpenSource = () => Promise.reject(new Error('asked for what is here'));
      const stream = await layout.readArriving(want, fetching(layout, never));
      expect((await collect(stream)).equals(bytes)).to.equal(true);
      const empty = { digest: digestOf(''), size: 0 };
      const none = await layout.readArriving(empty, (options) =>
        layout.ingest(empty, () => Promise.resolve({ offset: 0, body: Readable.from([]) }), options),
      );
      expect((await collect(none)).length).to.equal(0);
    });
  });

  it('is an error and no stream when there is nothing', async () => {
    await inLayout(async (layout) => {
      const open: OpenSource = () => Promise.reject(new LayercacheError('NOT_FOUND', 'nobody has it'));
      expect(await failure(layout.readArriving(want, fetching(layout, open)))).to.have.property(
        'code',
        'NOT_FOUND',
      );
      const signal = AbortSignal.abort();
      expect(await failure(layout.readArriving(want, fetching(layout, open), { signal }))).to.have.property(
        'code',
        'ABORTED',
      );
    });
  });

  it('fails when the rest does not come, and the next one goes on from there', async () => {
    await inLayout(async (layout) => {
      async function* half(): AsyncGenerator<Uint8Array> {
        await Promise.resolve();
        yield bytes.subarray(0, 1_000_000);
        throw new LayercacheError('NETWORK', 'the line broke');
      }
      const broken = await layout.readArriving(
        want,
        fetching(layout, () => Promise.resolve({ offset: 0, body: half() })),
      );
      expect(await failure(collect(broken))).to.have.property('code', 'NETWORK');
      const { open, opened } = gated(Infinity);
      const stream = await layout.readArriving(want, fetching(layout, open));
      expect((await collect(stream)).equals(bytes)).to.equal(true);
      expect(opened).to.deep.equal([1_000_000]);
    });
  });

  it('fails before its end when the fetch had to start again with other bytes', async () => {
    await inLayout(async (layout, dir) => {
      const partial = join(dir, '.layercache', 'ingest', `sha256-${digestHex(want.digest)}.partial`);
      mkdirSync(dirname(partial), { recursive: true });
      writeFileSync(partial, Buffer.alloc(1_000_000, 'wrong'));
      const { open, go, opened } = gated(1_600_000);
      const stream = await layout.readArriving(want, fetching(layout, open));
      let got = 0;
      const reading = (async (): Promise<void> => {
        for await (const chunk of stream) {
          got += (chunk as Buffer).length;
          go();
        }
      })();
      expect(await failure(reading)).to.have.property('code', 'DIGEST_MISMATCH');
      expect(got).to.be.lessThan(bytes.length);
      expect(opened).to.deep.equal([1_000_000, 0]);
      expect((await collect(layout.read(want.digest))).equals(bytes)).to.equal(true);
    });
  });

  it('calls the fetch off when nobody reads any more, unless somebody else does', async () => {
    await inLayout(async (layout) => {
      const { open, go } = gated(1_000_000);
      const [left, stays] = await Promise.all([
        layout.readArriving(want, fetching(layout, open)),
        layout.readArriving(want, fetching(layout, open)),
      ]);
      left.destroy();
      go();
      expect((await collect(stays)).equals(bytes)).to.equal(true);
    });
    await inLayout(async (layout) => {
      const { open } = gated(1_000_000);
      let ended: unknown;
      const abort = new AbortController();
      const stream = await layout.readArriving(
        want,
        (options) => fetching(layout, open)(options).catch((error: unknown) => (ended = error)),
        { signal: abort.signal },
      );
      abort.abort();
      await failure(collect(stream));
      expect(ended).to.have.property('code', 'ABORTED');
    });
  });
});
