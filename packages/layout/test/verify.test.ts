import {
  mkdirSync,
  readFileSync,
  readdirSync,
  truncateSync,
  writeFileSync,
  openSync,
  writeSync,
  closeSync,
  appendFileSync,
  utimesSync,
  rmSync,
} from 'node:fs';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { expect } from 'chai';
import {
  Annotation,
  LayercacheError,
  MediaType,
  digestOf,
  refName,
  type Descriptor,
  type Digest,
} from '@layercache/oci';
import {
  OciLayout,
  nodeFileSystem,
  verify,
  type FileSystem,
  type LayoutExtension,
  type VerifyReport,
} from '../src/index.js';
import { blobOf, digestNumber, failure, inLayout, inScratch } from './scratch.js';

const nothing = { corrupted: 0, missing: 0, invalid: 0, orphaned: 0, unreadable: 0 };
const good = Buffer.from('good bytes');
const bad = Buffer.from('bytes that will rot');

async function fill(layout: OciLayout): Promise<void> {
  for (const bytes of [good, bad]) await layout.write(bytes);
  await layout.put([blobOf(good), blobOf(bad)]);
  await layout.sync();
}

/** As another tool does it. An outside edit is looked for every 50 ms. */
async function editIndex(layout: OciLayout, change: (entries: Descriptor[]) => Descriptor[]): Promise<void> {
  const path = join(layout.dir, 'index.json');
  const { manifests } = JSON.parse(readFileSync(path, 'utf8')) as { manifests: Descriptor[] };
  writeFileSync(path, JSON.stringify({ schemaVersion: 2, manifests: change(manifests) }));
  await new Promise((resolve) => setTimeout(resolve, 60));
}

const messages = (report: VerifyReport): string[] =>
  report.problems.map((problem) => `${problem.step}: ${problem.message}`);

describe('verifying a layout', () => {
  it('finds nothing wrong in a good one, and says what it looked at', async () => {
    await inLayout(async (layout) => {
      await fill(layout);
      await layout.put({ ...blobOf(Buffer.from('remote')), size: 7 });
      const progress: string[] = [];
      const report = await verify(layout, {
        onProgress: ({ step, done, total }) => progress.push(`${step} ${done}/${total}`),
      });
      expect(report).to.deep.include({ ok: true, problems: [], absent: 1, bytes: good.length + bad.length });
      expect(report.steps.map(({ name, checked }) => `${name} ${checked}`)).to.deep.equal([
        'layout 1',
        'index 2',
        'map 2',
        'journal 1',
        'sizes 3',
        'digests 2',
        'missing 1',
        'pairs 0',
        'orphans 2',
        'temporary files 0',
      ]);
      expect(progress).to.include.members(['sizes 3/3', 'digests 1/2', 'digests 2/2']);
    });
  });

  it('reports rotten bytes and leaves them; repairs by dropping, or by fetching again', async () => {
    await inLayout(async (layout) => {
      await fill(layout);
      const { digest } = blobOf(bad);
      const rot = (): void => {
        writeFileSync(layout.blobPath(digest), Buffer.from(bad).fill('x', 0, 1));
      };
      rot();
      const report = await verify(layout);
      expect(report.ok).to.equal(false);
      expect(report.problems).to.have.length(1);
      expect(report.problems[0]).to.include({ step: 'digests', digest, repaired: false });
      expect(await layout.has(digest)).to.equal(true);

      const refetched = await verify(layout, {
        repair: true,
        refetch: async () => {
          await layout.write(bad);
          return true;
        },
      });
      expect(refetched.ok).to.equal(true);
      expect(await layout.readBytes(digest)).to.deep.equal(bad);
      expect(layout.lookup(digest)).to.have.length(1);

      rot();
      const refetch = (): Promise<boolean> => Promise.reject(new Error('offline'));
      expect(await verify(layout, { repair: true, refetch })).to.include({ ok: true });
      expect(await layout.has(digest)).to.equal(false);
      expect(layout.lookup(digest)).to.deep.equal([]);
      expect(await verify(layout)).to.deep.include({ ok: true, problems: [] });
    });
  });

  it('tells a torn blob from an entry of which another tool wrote a wrong size', async () => {
    await inLayout(async (layout) => {
      await fill(layout);
      await editIndex(layout, (entries) =>
        entries.map((one) => (one.digest === digestOf(good) ? { ...one, size: 3 } : one)),
      );
      truncateSync(layout.blobPath(digestOf(bad)), 4);
      const report = await verify(layout, { repair: true });
      expect(report.ok).to.equal(true);
      // What is known of a size here is not given up for what another tool wrote.
      expect(messages(report)).to.have.length(1);
      expect(layout.lookup(digestOf(good))[0]!.descriptor.size).to.equal(good.length);
      expect(layout.lookup(digestOf(bad))).to.deep.equal([]);
    });
  });

  it('puts right the size in every entry of a digest', async () => {
    await inLayout(async (layout) => {
      await fill(layout);
      const names = ['a:1', 'b:1', 'c:1'];
      await editIndex(layout, (entries) => [
        ...entries.filter((one) => one.digest !== digestOf(good)),
        ...names.map((name, n) => ({
          ...blobOf(good),
          size: n === 2 ? good.length : n,
          annotations: { [Annotation.refName]: name },
        })),
      ]);
      const report = await verify(layout, { repair: true });
      expect(report.ok).to.equal(true);
      const found = layout
        .lookup(digestOf(good))
        .map(({ descriptor }) => [refName(descriptor), descriptor.size]);
      expect(found).to.deep.equal(names.map((name) => [name, good.length]));
      expect(await verify(layout)).to.deep.include({ ok: true, problems: [] });
    });
  });

  for (const code of ['EIO', 'EMFILE', 'EACCES', 'ESTALE']) {
    for (const operation of ['open', 'read', 'stat'] as const) {
      it(`reports a blob whose ${operation} fails with ${code}, and leaves it and its names alone`, async () => {
        await inScratch(async (dir) => {
          const made = await OciLayout.open(dir);
          await fill(made);
          await made.put({ ...blobOf(good), annotations: { [Annotation.refName]: 'keep:1' } });
          await made.close();
          const path = made.blobPath(digestOf(good));
          let broken: number | undefined;
          const fail = (): Promise<never> =>
            Promise.reject(Object.assign(new Error(code), { code, syscall: operation }));
          const files: FileSystem = {
            ...nodeFileSystem,
            open: async (name, flags, mode) => {
              if (name !== path) return nodeFileSystem.open(name, flags, mode);
              if (operation === 'open') return fail();
              return (broken = await nodeFileSystem.open(name, flags, mode));
            },
            read: (fd, buffer, position) =>
              operation === 'read' && fd === broken ? fail() : nodeFileSystem.read(fd, buffer, position),
            stat: (name) => (operation === 'stat' && name === path ? fail() : nodeFileSystem.stat(name)),
          };
          const layout = await OciLayout.open(dir, { files });
          const report = await verify(layout, { repair: true, files }).catch((error: unknown) => error);
          if (report instanceof Error) expect(report).to.include({ code: 'STORAGE' });
          else expect(report).to.deep.include({ ok: false, found: { ...nothing, unreadable: 1 } });
          expect(layout.lookupTag('keep:1')?.descriptor.digest).to.equal(digestOf(good));
          await layout.close();
          expect(readFileSync(path)).to.deep.equal(good);
        });
      });
    }
  }

  it('checks pairs with the function it is given, and puts right what was claimed', async () => {
    await inLayout(async (layout) => {
      const [one, two, three] = ['one', 'two', 'three'].map((text) => gzipSync(text));
      const put = async (bytes: Buffer, diffID: Digest): Promise<void> => {
        await layout.write(bytes);
        await layout.put({
          ...blobOf(bytes, MediaType.layerGzip),
          annotations: { [Annotation.diffID]: diffID },
        });
      };
      await put(one!, digestOf('one'));
      await put(two!, digestNumber('wrong'));
      await put(three!, digestNumber('unreadable'));
      const checkPair = ({ digest }: { digest: Digest }): Promise<Digest> =>
        digest === digestOf(three!)
          ? Promise.reject(new LayercacheError('COMPRESSION_INVALID', 'cannot be decompressed'))
          : Promise.resolve(digest === digestOf(one!) ? digestOf('one') : digestOf('two'));
      const report = await verify(layout, { repair: true, checkPair });
      expect(report.problems.map(({ step, repaired }) => `${step} ${repaired}`).sort()).to.deep.equal([
        'pairs false',
        'pairs true',
      ]);
      expect(layout.lookup(digestOf('one'))[0]).to.include({ proven: true });
      expect(layout.lookup(digestOf('two'))[0]).to.include({ proven: true });
      expect(layout.lookup(digestNumber('wrong'))).to.deep.equal([]);
    });
  });

  it('makes a damaged map and a torn journal again', async () => {
    await inLayout(async (layout, dir) => {
      await fill(layout);
      const fd = openSync(join(dir, '.layercache/map'), 'r+');
      writeSync(fd, Buffer.alloc(10, 0xff), 0, 10, 4096 + 20);
      closeSync(fd);
      expect(messages(await verify(layout))).to.deep.equal([
        'map: the index map is of no use: page 1 is damaged',
      ]);
      expect((await verify(layout, { repair: true })).ok).to.equal(true);
      expect(await verify(layout)).to.include({ ok: true });

      appendFileSync(join(dir, '.layercache/journal'), 'torn');
      expect(messages(await verify(layout))).to.deep.equal(['journal: 4 bytes of the journal are torn']);
      expect((await verify(layout, { repair: true })).ok).to.equal(true);
      expect(await verify(layout)).to.deep.include({ ok: true, problems: [] });
      expect([...layout.entries()]).to.have.length(2);
    });
  });

  it('adopts blobs without an entry, as a manifest names them or by their bytes', async () => {
    await inLayout(async (layout) => {
      const config = Buffer.from(
        JSON.stringify({ architecture: 'amd64', os: 'linux', rootfs: { type: 'layers', diff_ids: [] } }),
      );
      const lone = Buffer.from(
        JSON.stringify({ architecture: 'arm64', os: 'linux', rootfs: { type: 'layers', diff_ids: [] } }),
      );
      const gzip = gzipSync('lone layer');
      const zstd = Buffer.from([0x28, 0xb5, 0x2f, 0xfd, 0, 0]);
      const tar = Buffer.alloc(1024);
      tar.write('ustar', 257);
      const named = Buffer.from('a layer that its manifest knows');
      const manifest = Buffer.from(
        JSON.stringify({
          schemaVersion: 2,
          config: blobOf(config, MediaType.config),
          layers: [blobOf(named, 'application/x.named')],
        }),
      );
      const index = Buffer.from(JSON.stringify({ schemaVersion: 2, manifests: [] }));
      const docker = Buffer.from(JSON.stringify({ mediaType: MediaType.dockerManifestList, manifests: [] }));
      const expected = new Map<Buffer, string>([
        [config, MediaType.config],
        [lone, MediaType.config],
        [gzip, MediaType.layerGzip],
        [zstd, MediaType.layerZstd],
        [tar, MediaType.layer],
        [named, 'application/x.named'],
        [manifest, MediaType.manifest],
        [index, MediaType.index],
        [docker, MediaType.dockerManifestList],
        [Buffer.from('{not json'), MediaType.octetStream],
        [Buffer.from('[1]'), MediaType.octetStream],
      ]);
      for (const bytes of expected.keys()) await layout.write(bytes);
      expect((await verify(layout)).problems).to.deep.equal([]);
      expect((await verify(layout, { grace: 0 })).problems).to.have.length(expected.size);
      expect((await verify(layout, { grace: 0, repair: true })).ok).to.equal(true);
      for (const [bytes, mediaType] of expected) {
        expect(layout.lookup(digestOf(bytes))[0]?.descriptor, mediaType).to.deep.equal(
          blobOf(bytes, mediaType),
        );
      }
    });
  });

  it('adopts young blobs at once, with what they bring, unless a writer pins them', async () => {
    const [config, manifest, pinned] = ['config', 'manifest', 'pinned'].map((text) => Buffer.from(text));
    const names = { [Annotation.refName]: 'app:1' };
    const document = Buffer.from(
      JSON.stringify({
        schemaVersion: 2,
        mediaType: MediaType.index,
        manifests: [blobOf(manifest!, MediaType.manifest)],
      }),
    );
    const extension: LayoutExtension = {
      recognise: (bytes) =>
        Buffer.compare(bytes, document) === 0 ? blobOf(document, MediaType.index) : undefined,
      adopt: (context) =>
        Promise.resolve(
          context.manifests.some((one) => one.digest === digestOf(document))
            ? [{ ...blobOf(manifest!, MediaType.manifest), annotations: names }]
            : [],
        ),
      derive: () => Promise.resolve({ put: [], drop: [], unlink: [] }),
    };
    await inLayout(
      async (layout, dir) => {
        for (const bytes of [config!, manifest!, document]) {
          mkdirSync(join(dir, 'blobs/sha256'), { recursive: true });
          writeFileSync(layout.blobPath(digestOf(bytes)), bytes);
        }
        await using writer = await OciLayout.open(dir);
        await writer.write(pinned!);
        expect((await verify(layout)).problems).to.deep.equal([]);
        await verify(layout, { repair: true });
        expect(layout.lookup(digestOf(config!))).to.have.length(1);
        expect(layout.lookupTag('app:1')?.descriptor.digest).to.equal(digestOf(manifest!));
        // What was derived from entries is read, and is no entry; what is being written is left alone.
        for (const bytes of [document, pinned!]) expect(layout.lookup(digestOf(bytes))).to.deep.equal([]);
      },
      { extension },
    );
  });

  it('loses nothing when the side state is deleted: what was not committed is adopted', async () => {
    await inLayout(async (layout, dir) => {
      await layout.write(good);
      await layout.put(blobOf(good, MediaType.octetStream));
      rmSync(join(dir, '.layercache'), { recursive: true });
      utimesSync(layout.blobPath(digestOf(good)), new Date(0), new Date(0));
      await using again = await OciLayout.open(dir);
      expect(again.lookup(digestOf(good))).to.deep.equal([]);
      expect((await verify(again, { repair: true })).ok).to.equal(true);
      expect(again.lookup(digestOf(good))).to.have.length(1);
    });
  });

  it('reports what is not a blob, and removes what dead writers left', async () => {
    await inLayout(async (layout, dir) => {
      await fill(layout);
      writeFileSync(join(dir, 'blobs/sha256/README'), 'hello');
      writeFileSync(join(dir, '.layercache/ingest/0123.tmp'), 'half');
      const report = await verify(layout, { repair: true });
      expect(messages(report)).to.have.length(1);
      expect(messages(report)[0]).to.contain('README').and.to.contain('not a blob');
      expect(readdirSync(join(dir, '.layercache/ingest'))).to.deep.equal([]);
    });
  });

  it('stops when told to, and when index.json is broken', async () => {
    await inLayout(async (layout, dir) => {
      await fill(layout);
      expect(await failure(verify(layout, { signal: AbortSignal.abort() }))).to.include({ code: 'ABORTED' });
      rmSync(join(dir, 'oci-layout'));
      expect(await failure(verify(layout))).to.include({ code: 'LAYOUT_INVALID' });
    });
  });
});
