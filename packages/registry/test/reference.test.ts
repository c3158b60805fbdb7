import { expect } from 'chai';
import fc from 'fast-check';
import { isLayercacheError } from '@layercache/oci';
import { apiHost, formatReference, isRepositoryName, parseReference } from '../src/reference.js';

const DIGEST = `sha256:${'a'.repeat(64)}`;

describe('a reference', () => {
  const full: Readonly<Record<string, string>> = {
    alpine: 'docker.io/library/alpine:latest',
    'alpine:3.20': 'docker.io/library/alpine:3.20',
    'team/app': 'docker.io/team/app:latest',
    'docker.io/alpine': 'docker.io/library/alpine:latest',
    'index.docker.io/alpine:1': 'docker.io/library/alpine:1',
    'localhost/app': 'localhost/app:latest',
    'localhost:5000/app:v1': 'localhost:5000/app:v1',
    'LOCALHOST/app': 'LOCALHOST/app:latest',
    'registry.example/a/b/c:v1': 'registry.example/a/b/c:v1',
    '[::1]:5000/app': '[::1]:5000/app:latest',
    [`alpine@${DIGEST}`]: `docker.io/library/alpine@${DIGEST}`,
    [`ghcr.io/a/b:v1@${DIGEST}`]: `ghcr.io/a/b:v1@${DIGEST}`,
    'a__b/c--d/e.f_g': 'docker.io/a__b/c--d/e.f_g:latest',
  };
  for (const [short, long] of Object.entries(full)) {
    it(`${short} is ${long}`, () => {
      expect(formatReference(parseReference(short))).to.equal(long);
    });
  }

  const wrong = [
    '',
    ' alpine',
    'Alpine',
    'alpine:',
    'alpine:-1',
    `alpine:${'t'.repeat(129)}`,
    'alpine@sha256:short',
    `alpine@${DIGEST}@${DIGEST}`,
    'alpine@md5:0123',
    'a//b',
    '/a',
    'a/',
    '../etc/passwd',
    'a..b',
    'a/-b',
    'localhost:port/app',
    'registry.example/',
    'https://registry.example/app',
    `registry.example/${'a'.repeat(250)}`,
    'app\n',
  ];
  for (const text of wrong) {
    it(`${JSON.stringify(text.slice(0, 40))} is none`, () => {
      expect(() => parseReference(text))
        .to.throw(/is not an image reference/)
        .with.property('code', 'REFERENCE_INVALID');
    });
  }

  it('is read back as it was written', () => {
    const name = fc.stringMatching(/^[a-z0-9]{1,8}([._-][a-z0-9]{1,4})?(\/[a-z0-9]{1,8}){0,3}$/);
    const host = fc.stringMatching(/^[a-z]{1,8}\.[a-z]{2,4}(:[1-9][0-9]{0,3})?$/);
    const tag = fc.stringMatching(/^[A-Za-z0-9_][A-Za-z0-9._-]{0,20}$/);
    fc.assert(
      fc.property(host, name, fc.option(tag), fc.boolean(), (registry, repository, label, byDigest) => {
        const text = `${registry}/${repository}${label === null ? '' : `:${label}`}${byDigest ? `@${DIGEST}` : ''}`;
        const once = parseReference(text);
        expect(parseReference(formatReference(once))).to.deep.equal(once);
        expect([once.registry, once.repository]).to.deep.equal([registry, repository]);
      }),
    );
  });

  it('is refused with one line, whatever it is', () => {
    fc.assert(
      fc.property(fc.string({ maxLength: 400, unit: 'binary' }), (text) => {
        try {
          const { repository } = parseReference(text);
          expect(isRepositoryName(repository)).to.equal(true);
        } catch (error) {
          if (!isLayercacheError(error, 'REFERENCE_INVALID')) throw error;
          expect(error.message).not.to.include('\n');
        }
      }),
    );
  });
});

describe('the host of a registry', () => {
  it('is its name, but for Docker Hub', () => {
    expect(apiHost('docker.io')).to.equal('registry-1.docker.io');
    expect(apiHost('ghcr.io')).to.equal('ghcr.io');
  });
});
