import { cpSync, readFileSync, writeFileSync, mkdirSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from 'chai';
import { Annotation, MediaType, digestOf, type Digest } from '@layercache/oci';
import { OciLayout, nodeFileSystem, type FileSystem } from '../src/index.js';
import { digestNumber, failure, inLayout, inScratch, layerPair, manifestNamed } from './scratch.js';

describe('opening a layout', () => {
  it('makes one in an empty or absent folder', async () => {
    await inScratch(async (dir) => {
      const layout = await OciLayout.open(join(dir, 'a', 'b'));
      await layout.close();
      expect(readFileSync(join(dir, 'a/b/oci-layout'), 'utf8')).to.equal('{"imageLayoutVersion":"1.0.0"}');
      expect(readFileSync(join(dir, 'a/b/index.json'), 'utf8')).to.equal(
        `{"manifests":[],"mediaType":"${MediaType.index}","schemaVersion":2}`,
      );
    });
  });

  it('sees that another process makes one in this very moment', async () => {
    await inScratch(async (dir) => {
      const other = await OciLayout.open(join(dir, 'other'));
      await other.put(manifestNamed('app'));
      await other.close();
      const there = join(dir, 'there');
      mkdirSync(there);
      // Made between the look for `oci-layout` and the look into the folder.
      const files: FileSystem = {
        ...nodeFileSystem,
        readdirSync: (path) => {
          if (path === there) cpSync(other.dir, there, { recursive: true });
          return nodeFileSystem.readdirSync(path);
        },
      };
      const layout = await OciLayout.open(there, { files });
      expect(layout.lookupTag('app')?.descriptor.digest).to.equal(manifestNamed('app').digest);
      await layout.close();
    });
  });

  it('does not make one when asked not to', async () => {
    await inScratch(async (dir) => {
      const error = await failure(OciLayout.open(dir, { create: false }));
      expect(error).to.include({ code: 'NOT_FOUND' });
      expect(readdirSync(dir)).to.deep.equal([]);
    });
  });

  it('does not turn a folder of something else into a layout', async () => {
    await inScratch(async (dir) => {
      writeFileSync(join(dir, 'thesis.txt'), 'important');
      const error = await failure(OciLayout.open(dir));
      expect(error).to.include({ code: 'LAYOUT_INVALID' });
      expect(error.message).to.contain(dir).and.to.contain('not an OCI image layout');
      expect(readdirSync(dir)).to.deep.equal(['thesis.txt']);
    });
  });

  it('refuses a file', async () => {
    await inScratch(async (dir) => {
      writeFileSync(join(dir, 'file'), '');
      expect(await failure(OciLayout.open(join(dir, 'file')))).to.include({ code: 'LAYOUT_INVALID' });
    });
  });

  it('refuses a version it does not know, and says which', async () => {
    await inScratch(async (dir) => {
      writeFileSync(join(dir, 'oci-layout'), '{"imageLayoutVersion":"2.0.0"}');
      const error = await failure(OciLayout.open(dir));
      expect(error).to.include({ code: 'LAYOUT_INVALID' });
      expect(error.message).to.contain('2.0.0');
    });
  });

  for (const [what, text, place] of [
    ['JSON that is broken', '{"schemaVersion":2,"manifests":[', 'index.json is not JSON'],
    ['a digest that is a path', descriptors('"digest":"sha256:../../x","size":1'), 'manifests.0.digest'],
    [
      'an algorithm that is not known',
      descriptors('"digest":"md5:d41d8cd98f00b204e9800998ecf8427e","size":1'),
      'manifests.0.digest',
    ],
    ['a negative size', descriptors(`"digest":"${digestNumber(1)}","size":-1`), 'manifests.0.size'],
    ['another schema version', '{"schemaVersion":1,"manifests":[]}', 'schemaVersion'],
  ] as const) {
    it(`refuses an index.json with ${what}, names the place, and leaves the file alone`, async () => {
      await inScratch(async (dir) => {
        writeFileSync(join(dir, 'oci-layout'), '{"imageLayoutVersion":"1.0.0"}');
        writeFileSync(join(dir, 'index.json'), text);
        const error = await failure(OciLayout.open(dir));
        expect(error).to.include({ code: 'LAYOUT_INVALID' });
        expect(error.message).to.contain(place).and.not.to.contain('\n');
        expect(readFileSync(join(dir, 'index.json'), 'utf8')).to.equal(text);
      });
    });
  }

  it('starts from nothing when only side state and blobs are there', async () => {
    await inScratch(async (dir) => {
      mkdirSync(join(dir, 'blobs', 'sha256'), { recursive: true });
      mkdirSync(join(dir, '.layercache', 'ingest'), { recursive: true });
      const layout = await OciLayout.open(dir);
      await layout.close();
      expect(readdirSync(dir)).to.include.members(['oci-layout', 'index.json']);
    });
  });
});

describe('entries', () => {
  it('are found by digest and by diffID, in both directions', async () => {
    await inLayout(async (layout) => {
      const { gzip, tar } = layerPair(1);
      await layout.put([gzip, tar]);
      for (const key of [gzip.digest, tar.digest]) {
        const found = layout.lookup(key).map((entry) => entry.descriptor.digest);
        expect(found).to.have.members([gzip.digest, tar.digest]);
      }
      expect(layout.lookup(digestNumber('unknown'))).to.deep.equal([]);
    });
  });

  it('list many compressed counterparts of one diffID, sorted, when committed', async () => {
    await inLayout(async (layout) => {
      const { gzip, tar } = layerPair(1);
      const zstd = { ...gzip, mediaType: MediaType.layerZstd, digest: digestNumber('zstd') };
      await layout.put([tar, gzip, zstd]);
      await layout.sync();
      const [found] = layout.lookup(tar.digest).filter((entry) => entry.descriptor.digest === tar.digest);
      expect(found!.descriptor.annotations![Annotation.digest]).to.equal(
        [gzip.digest, zstd.digest].sort().join(),
      );
    });
  });

  it('take up what other tools call a diffID, and keep their annotation', async () => {
    await inLayout(async (layout) => {
      const { gzip, tar } = layerPair(1);
      const foreign = { ...gzip, annotations: { 'containerd.io/uncompressed': tar.digest, other: 'x' } };
      await layout.put(foreign);
      expect(layout.lookup(tar.digest)[0]!.descriptor.annotations).to.deep.equal({
        'containerd.io/uncompressed': tar.digest,
        other: 'x',
        [Annotation.diffID]: tar.digest,
      });
    });
  });

  it('keep a proof until the diffID changes, and prefer it to a claim', async () => {
    await inLayout(async (layout) => {
      const { gzip, tar } = layerPair(1);
      await layout.put(gzip, { proven: true });
      await layout.put({ ...gzip, annotations: { note: 'again' } });
      expect(layout.lookup(gzip.digest)).to.deep.equal([
        { descriptor: { ...gzip, annotations: { ...gzip.annotations, note: 'again' } }, proven: true },
      ]);
      await layout.put({ ...gzip, annotations: { [Annotation.diffID]: digestNumber('poison') } });
      expect(layout.lookup(gzip.digest)[0]!.descriptor.annotations![Annotation.diffID]).to.equal(tar.digest);
      expect(layout.lookup(digestNumber('poison'))).to.deep.equal([]);
      await layout.put(
        { ...gzip, annotations: { [Annotation.diffID]: digestNumber('truth') } },
        { proven: true },
      );
      expect(layout.lookup(tar.digest)).to.deep.equal([]);
      expect(layout.lookup(digestNumber('truth'))[0]).to.include({ proven: true });
    });
  });

  it('move a name to the last one that was put under it, and keep the other nameless', async () => {
    await inLayout(async (layout) => {
      const [old, latest] = [manifestNamed('app:1', 'old'), manifestNamed('app:1', 'latest')];
      await layout.put(old);
      await layout.put(latest);
      expect(layout.lookupTag('app:1')?.descriptor).to.deep.equal(latest);
      expect(layout.lookup(old.digest)[0]!.descriptor).to.deep.equal({
        mediaType: old.mediaType,
        digest: old.digest,
        size: old.size,
      });
      expect([...layout.tags()].map(([name]) => name)).to.deep.equal(['app:1']);
      expect(await layout.untag('app:1')).to.equal(true);
      expect(await layout.untag('app:1')).to.equal(false);
      expect(layout.lookupTag('app:1')).to.equal(undefined);
      expect(layout.lookup(latest.digest)).to.have.length(1);
    });
  });

  it('may name one digest several times', async () => {
    await inLayout(async (layout) => {
      await layout.put([manifestNamed('a', 1), manifestNamed('b', 1)]);
      expect(layout.lookup(digestNumber(1))).to.have.length(2);
      await layout.untag('a');
      expect(layout.lookup(digestNumber(1))).to.have.length(1);
      expect(layout.lookupTag('b')?.descriptor).to.deep.equal(manifestNamed('b', 1));
    });
  });

  it('are refused when they are not descriptors', async () => {
    await inLayout(async (layout) => {
      const bad = { mediaType: MediaType.layer, digest: 'sha256:../../x' as Digest, size: 1 };
      const error = await failure(layout.put(bad));
      expect(error).to.include({ code: 'DOCUMENT_INVALID' });
      expect(error.message).to.contain('digest');
      expect([...layout.entries()]).to.deep.equal([]);
    });
  });

  it('are gone after a removal, with the blob, and from the lists of their counterparts', async () => {
    await inLayout(async (layout) => {
      const bytes = Buffer.from('compressed');
      const { digest, size } = await layout.write(bytes);
      const { tar } = layerPair(1);
      await layout.put([
        { mediaType: MediaType.layerGzip, digest, size, annotations: { [Annotation.diffID]: tar.digest } },
        { ...tar, annotations: { [Annotation.digest]: digest } },
      ]);
      expect(await layout.remove(digest)).to.equal(true);
      expect(await layout.remove(digest)).to.equal(false);
      expect(await layout.has(digest)).to.equal(false);
      expect(layout.lookup(digest)).to.deep.equal([]);
      expect(layout.lookup(tar.digest)).to.have.length(1);
    });
  });
});

describe('index.json', () => {
  it('has the same bytes for the same entries, whatever their order and history', async () => {
    const texts: string[] = [];
    for (const order of [
      [1, 2, 3],
      [3, 1, 2, 4],
    ]) {
      await inLayout(async (layout, dir) => {
        for (const n of order) {
          const { gzip, tar } = layerPair(n);
          await layout.put(n === 2 ? [gzip, tar] : [tar, gzip]);
        }
        await layout.remove(layerPair(4).gzip.digest);
        await layout.remove(layerPair(4).tar.digest);
        await layout.sync();
        texts.push(readFileSync(join(dir, 'index.json'), 'utf8'));
      });
    }
    expect(texts[0]).to.equal(texts[1]);
    expect(texts[0]!.match(/"digest":/g)).to.have.length(6);
  });

  it('keeps fields that nobody here knows', async () => {
    await inScratch(async (dir) => {
      writeFileSync(join(dir, 'oci-layout'), '{"imageLayoutVersion":"1.0.0"}');
      const kept = {
        annotations: { by: 'hand' },
        future: [1, { a: 2 }],
        manifests: [
          { digest: digestOf('x'), futureField: { z: 1 }, mediaType: 'application/x.unknown', size: 1 },
        ],
        schemaVersion: 2,
      };
      writeFileSync(join(dir, 'index.json'), JSON.stringify(kept));
      const layout = await OciLayout.open(dir);
      await layout.put(manifestNamed('app'));
      await layout.untag('app');
      await layout.remove(manifestNamed('app').digest);
      await layout.close();
      expect(readFileSync(join(dir, 'index.json'), 'utf8')).to.equal(JSON.stringify(kept));
    });
  });

  it('holds what was put after closing and opening again', async () => {
    await inScratch(async (dir) => {
      const { gzip, tar } = layerPair(1);
      const first = await OciLayout.open(dir);
      await first.put([gzip, tar, manifestNamed('app')]);
      await first.close();
      await using second = await OciLayout.open(dir, { create: false });
      expect(second.lookup(gzip.digest)).to.have.length(2);
      expect(second.lookupTag('app')?.descriptor).to.deep.equal(manifestNamed('app'));
    });
  });
});

function descriptors(fields: string): string {
  return `{"schemaVersion":2,"manifests":[{"mediaType":"application/octet-stream",${fields}}]}`;
}
