import { MediaType, digestOf, type Descriptor } from '@layercache/oci';
import { expect } from 'chai';
import { blobOrigins, mountSources, withOrigin, type BlobOrigin } from '../../src/entries/origins.js';

const PREFIX = 'containerd.io/distribution.source.';
const BLOB: Descriptor = { mediaType: MediaType.layer, digest: digestOf(Buffer.from('x')), size: 1 };
const at = (registry: string, repository: string): BlobOrigin => ({ registry, repository });
const annotated = (annotations: Record<string, string>): Descriptor => ({ ...BLOB, annotations });

describe('the origins of a blob', () => {
  it('are the registry and repositories it was seen in', () => {
    const seen = withOrigin(withOrigin(BLOB, at('a.example:5000', 'team/app')), at('a.example:5000', 'base'));
    expect(blobOrigins(seen)).to.deep.equal([
      { registry: 'a.example:5000', repository: 'base' },
      { registry: 'a.example:5000', repository: 'team/app' },
    ]);
    expect(mountSources(seen, at('a.example:5000', 'other'))).to.deep.equal(['base', 'team/app']);
    expect(mountSources(seen, at('b.example', 'other'))).to.deep.equal([]);
  });

  it('are none where an annotation breaks the grammar of hosts and repositories', () => {
    const nasty = ['http://evil.example/steal', '//evil.example/steal', '../steal', 'App', '', 'a?b', 'a\n'];
    for (const repository of nasty) {
      const blob = annotated({ [`${PREFIX}a.example`]: `good,${repository}` });
      expect(blobOrigins(blob), repository).to.deep.equal([{ registry: 'a.example', repository: 'good' }]);
      expect(mountSources(blob, at('a.example', 'app')), repository).to.deep.equal(['good']);
    }
    for (const host of [
      '',
      'a.example/path',
      'alice@a.example',
      'http://a.example',
      'a.example:99999',
      'a b',
      'a\u001b',
    ]) {
      expect(blobOrigins(annotated({ [`${PREFIX}${host}`]: 'app' })), host).to.deep.equal([]);
    }
  });
});
