import { expect } from 'chai';
import fc from 'fast-check';
import { Annotation, MediaType, claimedDiffID, digestOf, type Descriptor } from '@layercache/oci';
import { EntryTable } from '../src/entry-table.js';

const digest = digestOf('a layer');
const named = (name: string, content: string, annotations: Record<string, string> = {}): Descriptor => ({
  mediaType: MediaType.manifest,
  digest: digestOf(content),
  size: content.length,
  annotations: { [Annotation.refName]: name, ...annotations },
});
const layer = (diffID: string, mediaType: string = MediaType.layerGzip): Descriptor => ({
  mediaType,
  digest,
  size: 7,
  annotations: { [Annotation.diffID]: digestOf(diffID) },
});
const only = (table: EntryTable): Descriptor => {
  const [entry, ...others] = table.of(digest);
  if (entry === undefined || others.length > 0) throw new Error(`${others.length + 1} entries`);
  return entry.descriptor;
};

describe('two descriptions of one blob', () => {
  it('that call it a layer and a plain blob make it a layer, in either order', () => {
    const plain = { mediaType: MediaType.octetStream, digest, size: 7 };
    for (const order of [
      [layer('tar'), plain],
      [plain, layer('tar')],
    ]) {
      const table = new EntryTable();
      for (const descriptor of order) table.put(descriptor, false);
      expect(only(table).mediaType).to.equal(MediaType.layerGzip);
      expect(claimedDiffID(only(table))).to.equal(digestOf('tar'));
      expect(table.lookup(digestOf('tar'))).to.have.length(1);
    }
  });

  it('do not change what a manifest, an image config or a layer index is', () => {
    for (const mediaType of [MediaType.manifest, MediaType.index, MediaType.config, MediaType.dockerConfig]) {
      const table = new EntryTable();
      table.put({ mediaType, digest, size: 7 }, false);
      table.put({ ...layer('tar'), annotations: { [Annotation.sociLayerDigest]: digestOf('x') } }, false);
      expect(only(table)).to.deep.equal({ mediaType, digest, size: 7 });
    }
    const table = new EntryTable();
    const index = {
      mediaType: MediaType.octetStream,
      digest,
      size: 7,
      annotations: { [Annotation.sociLayerDigest]: digestOf('of this') },
    };
    table.put(index, true);
    table.put({ ...index, annotations: { [Annotation.sociLayerDigest]: digestOf('of that') } }, false);
    table.put(layer('tar'), false);
    expect(only(table).mediaType).to.equal(MediaType.octetStream);
    expect(only(table).annotations?.[Annotation.sociLayerDigest]).to.equal(digestOf('of this'));
  });

  it('that claim two diffIDs leave the first, until one is proven', () => {
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.integer({ min: 0, max: 3 }), fc.boolean()), { minLength: 1 }),
        (puts) => {
          const table = new EntryTable();
          let expected: string | undefined;
          let proven = false;
          for (const [diffID, proof] of puts) {
            table.put(layer(`tar ${diffID}`), proof);
            if (proof || expected === undefined) expected = digestOf(`tar ${diffID}`);
            proven ||= proof;
          }
          expect(claimedDiffID(only(table))).to.equal(expected);
          expect(table.of(digest)[0]?.proven).to.equal(proven);
        },
      ),
    );
  });

  it('take a claim back for good with an empty value', () => {
    const table = new EntryTable();
    const claim = (of: string): Descriptor => ({
      mediaType: MediaType.octetStream,
      digest,
      size: 7,
      annotations: { [Annotation.sociLayerDigest]: of },
    });
    table.put(claim(digestOf('x')), false);
    table.put(claim(''), false);
    table.put(claim(digestOf('y')), false);
    expect(only(table).annotations?.[Annotation.sociLayerDigest]).to.equal('');
  });
});

describe('a name that is only claimed', () => {
  const claimed = { [Annotation.nameState]: 'claimed' };

  it('takes effect where nothing has it, and nowhere else', () => {
    const table = new EntryTable();
    table.put(named('app:1', 'theirs', claimed), false);
    expect(table.tagged('app:1')?.descriptor.digest).to.equal(digestOf('theirs'));
    table.put(named('app:1', 'others', claimed), false);
    expect(table.tagged('app:1')?.descriptor.digest).to.equal(digestOf('theirs'));
    table.put(named('app:1', 'ours'), false);
    expect(table.tagged('app:1')?.descriptor.digest).to.equal(digestOf('ours'));
    table.put(named('app:1', 'theirs', claimed), false);
    expect(table.tagged('app:1')?.descriptor.digest).to.equal(digestOf('ours'));
    expect(table.of(digestOf('theirs')).map((entry) => entry.descriptor.annotations)).to.deep.equal([
      undefined,
    ]);
  });

  it('does not make a claim of a name that was given here, and is none once it is given', () => {
    const table = new EntryTable();
    table.put(named('app:1', 'image', { [Annotation.pinned]: 'true' }), false);
    table.put(named('app:1', 'image', claimed), false);
    expect(table.tagged('app:1')?.descriptor.annotations).to.deep.equal({
      [Annotation.refName]: 'app:1',
      [Annotation.pinned]: 'true',
    });
    table.put(named('lib:1', 'other', claimed), false);
    table.put(named('lib:1', 'other'), false);
    expect(table.tagged('lib:1')?.descriptor.annotations).to.deep.equal({ [Annotation.refName]: 'lib:1' });
  });
});
