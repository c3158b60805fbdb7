import { expect } from 'chai';
import fc from 'fast-check';
import { Annotation, MediaType, digestOf, type Descriptor } from '@layercache/oci';
import { entryOf, sharedEntry, sharedImage } from '../../src/entries/entry.js';
import { hostileAnnotations } from '../trust/hostile.js';

const descriptor: Descriptor = { mediaType: MediaType.layerGzip, digest: digestOf('x'), size: 1 };

describe('an entry made of somebody else’s descriptor', () => {
  it('has what the cache relies on, and nothing else that its author wrote', () => {
    fc.assert(
      fc.property(hostileAnnotations(['app:1'], [digestOf('y')]), fc.jsonValue(), (annotations, value) => {
        const nasty = {
          ...descriptor,
          annotations,
          data: 'x',
          future: value,
          __proto__: value,
        } as Descriptor;
        expect(entryOf(nasty)).to.deep.equal(descriptor);
      }),
    );
  });

  it('has of a platform the fields that the specification names', () => {
    const platform = { os: 'linux', architecture: 'arm', variant: 'v7', future: [['x']] };
    expect(entryOf({ ...descriptor, platform })).to.deep.equal({
      ...descriptor,
      platform: { architecture: 'arm', os: 'linux', variant: 'v7' },
    });
  });

  it('says what this machine noted, and of a tar no diffID but its own', () => {
    const diffID = digestOf('tar');
    const origin = { registry: 'a.example', repository: 'app' };
    expect(entryOf(descriptor, { diffID, origin }).annotations).to.deep.equal({
      [Annotation.diffID]: diffID,
      'containerd.io/distribution.source.a.example': 'app',
    });
    expect(entryOf({ ...descriptor, mediaType: MediaType.layer }, { diffID })).to.deep.equal({
      ...descriptor,
      mediaType: MediaType.layer,
    });
  });
});

describe('an entry that travels', () => {
  it('claims pairs and layer indexes, and tells nothing of names, pins, times, states and origins', () => {
    fc.assert(
      fc.property(hostileAnnotations(['app:1'], [digestOf('y')]), (annotations) => {
        const allowed = new Set<string>([
          Annotation.diffID,
          Annotation.digest,
          Annotation.sociLayerDigest,
          Annotation.files,
        ]);
        const names = Object.keys(sharedEntry({ ...descriptor, annotations }).annotations ?? {});
        expect(names.filter((name) => !allowed.has(name))).to.deep.equal([]);
        const image = sharedImage({ ...descriptor, mediaType: MediaType.manifest, annotations });
        const kept = new Set<string>([Annotation.refName, Annotation.containerdName]);
        expect(Object.keys(image.annotations ?? {}).filter((name) => !kept.has(name))).to.deep.equal([]);
      }),
    );
  });

  it('claims at most 64 counterparts of one tar', () => {
    const digests = Array.from({ length: 1000 }, (_, n) => digestOf(`${n}`)).sort();
    const tar = { ...descriptor, mediaType: MediaType.layer };
    const shared = sharedEntry({ ...tar, annotations: { [Annotation.digest]: digests.join(',') } });
    expect(shared.annotations?.[Annotation.digest]?.split(',')).to.deep.equal(digests.slice(0, 64));
  });
});
