import { expect } from 'chai';
import {
  Annotation,
  MediaType,
  claimedDiffID,
  claimedDigests,
  digestOf,
  isLayercacheError,
  isNondistributable,
  layerForm,
  parseImageConfig,
  parseImageIndex,
  parseImageManifest,
  uncompressedMediaType,
  withAnnotations,
  type Descriptor,
} from '../src/index.js';

const a = digestOf('a');
const b = digestOf('b');
const json = (value: unknown): Buffer => Buffer.from(JSON.stringify(value));

function refusal(parse: () => unknown): string {
  try {
    parse();
  } catch (error) {
    if (isLayercacheError(error, 'DOCUMENT_INVALID')) return error.message;
    throw error;
  }
  throw new Error('accepted');
}

describe('documents from outside', () => {
  const config: Descriptor = { mediaType: MediaType.config, digest: a, size: 1 };

  it('keep fields that the specification does not name', () => {
    const manifest = parseImageManifest(
      json({ schemaVersion: 2, config: { ...config, future: [1] }, layers: [], later: true }),
    );
    expect(manifest.config.future).to.deep.equal([1]);
    expect(manifest).to.have.property('later', true);
  });

  it('are refused with the path of what is wrong', () => {
    const layers = [{ mediaType: MediaType.layer, digest: 'sha256:../../x', size: 1 }];
    const message = refusal(() =>
      parseImageManifest(json({ schemaVersion: 2, config, layers }), 'manifest m'),
    );
    expect(message).to.match(/^manifest m is not valid: layers\.0\.digest: not a digest/);
  });

  it('are refused when a size is negative, no whole number, or missing', () => {
    for (const size of [-1, 1.5, '1', undefined, 2 ** 60]) {
      const manifests = [{ mediaType: MediaType.manifest, digest: a, size }];
      expect(refusal(() => parseImageIndex(json({ schemaVersion: 2, manifests })))).to.contain(
        'manifests.0.size',
      );
    }
  });

  it('are refused when they are not JSON, and the error shows how they start', () => {
    expect(refusal(() => parseImageIndex(Buffer.from('<html>Sign in</html>')))).to.contain('<html>Sign in');
    expect(refusal(() => parseImageIndex(Buffer.from([0xff, 0xfe])))).to.contain('is not JSON');
  });

  it('of another schema version are refused', () => {
    expect(refusal(() => parseImageManifest(json({ schemaVersion: 1, config, layers: [] })))).to.contain(
      'schemaVersion',
    );
  });

  it('give the diffIDs of an image config', () => {
    const parsed = parseImageConfig(json({ rootfs: { type: 'layers', diff_ids: [a, b] }, os: 'linux' }));
    expect(parsed.rootfs.diff_ids).to.deep.equal([a, b]);
    refusal(() => parseImageConfig(json({ rootfs: { type: 'layers', diff_ids: ['nope'] } })));
  });
});

describe('a layer descriptor', () => {
  const gzip: Descriptor = { mediaType: MediaType.layerGzip, digest: a, size: 1 };

  it('in the form tar is its own diffID', () => {
    expect(claimedDiffID({ mediaType: MediaType.dockerLayer, digest: b, size: 1 })).to.equal(b);
  });

  for (const name of [Annotation.diffID, 'dev.ggcr.cache.diffid', 'containerd.io/uncompressed']) {
    it(`claims the diffID annotated as ${name}`, () => {
      expect(claimedDiffID({ ...gzip, annotations: { [name]: b } })).to.equal(b);
    });
  }

  it('claims nothing with an annotation that is no digest', () => {
    expect(claimedDiffID({ ...gzip, annotations: { [Annotation.diffID]: '../../etc/passwd' } })).to.equal(
      undefined,
    );
  });

  it('lists its compressed counterparts sorted, without repeats or rubbish', () => {
    const annotations = { [Annotation.digest]: `${b},x, ${a}`, 'dev.ggcr.cache.digest': a };
    expect(claimedDigests({ ...gzip, annotations })).to.deep.equal([a, b].sort());
  });

  it('gets and loses annotations without touching the others', () => {
    const annotated = withAnnotations({ ...gzip, annotations: { keep: 'me' } }, { more: 'yes' });
    expect(annotated.annotations).to.deep.equal({ keep: 'me', more: 'yes' });
    expect(withAnnotations(annotated, { keep: undefined, more: undefined })).to.deep.equal(gzip);
  });

  it('has the form that its media type names, in OCI and Docker words', () => {
    expect(layerForm(MediaType.dockerLayerGzip)).to.equal('tar+gzip');
    expect(layerForm(MediaType.layerZstd)).to.equal('tar+zstd');
    expect(layerForm(MediaType.dockerLayer)).to.equal('tar');
    expect(layerForm(MediaType.config)).to.equal(undefined);
    expect(isNondistributable(MediaType.dockerForeignLayerGzip)).to.equal(true);
    expect(isNondistributable(MediaType.layerGzip)).to.equal(false);
    expect(uncompressedMediaType(MediaType.dockerLayerGzip)).to.equal(MediaType.dockerLayer);
    expect(uncompressedMediaType(MediaType.layerZstd)).to.equal(MediaType.layer);
  });
});
