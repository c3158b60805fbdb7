import { expect } from 'chai';
import fc from 'fast-check';
import { z } from 'zod';
import {
  LayercacheError,
  MAX_NESTING,
  digestOf,
  isNestedTooDeep,
  parseDocument,
  parseImageIndex,
  parseImageManifest,
} from '../src/index.js';

function depthOf(value: unknown): number {
  if (typeof value !== 'object' || value === null) return 0;
  return 1 + Math.max(0, ...Object.values(value).map(depthOf));
}

describe('the nesting of a document', () => {
  it('is counted as the parsed value has it, whatever stands in its strings', () => {
    fc.assert(
      fc.property(
        fc.jsonValue({ maxDepth: 6 }),
        fc.integer({ min: 0, max: MAX_NESTING + 3 }),
        (value, more) => {
          let nested: unknown = value;
          for (let n = 0; n < more; n++) nested = n % 2 === 0 ? [nested] : { '[{"\\': nested };
          expect(isNestedTooDeep(Buffer.from(JSON.stringify(nested)))).to.equal(
            depthOf(nested) > MAX_NESTING,
          );
        },
      ),
    );
  });

  it('is refused before anything walks it when it is deeper than any stack', () => {
    for (const deep of ['['.repeat(1e6) + ']'.repeat(1e6), `{"a":`.repeat(1e5) + '1' + '}'.repeat(1e5)]) {
      expect(() => parseDocument(z.unknown(), Buffer.from(deep), 'the document'))
        .to.throw(LayercacheError, /the document is not valid: .*deeper than 64/)
        .with.property('code', 'DOCUMENT_INVALID');
    }
  });
});

describe('a document that two readers would read as two images', () => {
  const descriptor = {
    mediaType: 'application/vnd.oci.image.config.v1+json',
    digest: digestOf('x'),
    size: 1,
  };
  const manifest = { schemaVersion: 2, config: descriptor, layers: [descriptor] };
  const bytes = (document: unknown): Uint8Array => Buffer.from(JSON.stringify(document));

  it('is refused as a manifest when it lists manifests, and as an index when it has layers or a config', () => {
    expect(() => parseImageManifest(bytes({ ...manifest, manifests: [] }), 'm'))
      .to.throw(/m is not valid: manifests/)
      .with.property('code', 'DOCUMENT_INVALID');
    for (const field of ['layers', 'config', 'fsLayers'])
      expect(() => parseImageIndex(bytes({ schemaVersion: 2, manifests: [], [field]: [] }), 'i'))
        .to.throw(new RegExp(`i is not valid: ${field}`))
        .with.property('code', 'DOCUMENT_INVALID');
  });

  it('is refused when it has a known field in other letters, which Go reads, or begins with a byte order mark', () => {
    for (const field of ['Layers', 'CONFIG', 'Manifests', 'mediatype'])
      expect(() => parseImageManifest(bytes({ ...manifest, [field]: [] }), 'm')).to.throw(
        new RegExp(`: ${field}: `),
      );
    const marked = Buffer.concat([Buffer.from([0xef, 0xbb, 0xbf]), bytes(manifest)]);
    expect(() => parseImageManifest(marked, 'm')).to.throw(/m is not JSON/);
  });

  it('is read when the other field is null, as Go writes what is empty', () => {
    expect(parseImageManifest(bytes({ ...manifest, manifests: null })).layers).to.have.length(1);
    expect(parseImageIndex(bytes({ schemaVersion: 2, manifests: [], layers: null })).manifests).to.deep.equal(
      [],
    );
  });
});
