import { expect } from 'chai';
import { digestOf } from '@layercache/oci';
import { checkName, isUsableName, looksLikeDigest } from '../../src/entries/names.js';
import { failure } from '../test-cache.js';

describe('the name of an image', () => {
  const digest = digestOf('image');

  it('may be any reference that tools write', () => {
    const names = [
      'app',
      'app:1',
      'docker.io/library/alpine:3.20',
      'localhost:5000/a/b:c',
      '1.0.x86_64_linux',
    ];
    for (const name of [...names, `a.example/app:1@${digest}`, 'sha256:latest', 'layercache:latest'])
      expect(isUsableName(name, digest), name).to.equal(true);
  });

  it('is refused, with the reason, when it means something else in a cache', async () => {
    const refused: [string, RegExp][] = [
      ['layercache', /name of the cache index itself/],
      [digest, /reads as a digest/],
      ['sha256:83eebabd6f0b', /reads as a digest/],
      [`sha512:${'0'.repeat(128)}`, /reads as a digest/],
      [`a.example/app@${digestOf('other')}`, /that of another image/],
      ['a.example/app@sha256:1', /no digest after it/],
      ['app\u001b[2J:1', /other than visible ASCII/],
      ['app 1', /other than visible ASCII/],
      ['', /1 to 600 characters/],
      ['a'.repeat(601), /1 to 600 characters/],
    ];
    for (const [name, why] of refused) {
      const error = await failure('REFERENCE_INVALID', () => {
        checkName(name, digest, 'oci:build');
      });
      expect(error.message)
        .to.match(/^oci:build: /)
        .and.match(why);
    }
  });

  it('is told from a digest by how it begins', () => {
    expect(['sha256:', 'sha256:0a', digest, 'sha512:F'].every(looksLikeDigest)).to.equal(true);
    expect(['sha256', 'sha1:00', 'sha256:xyz', `app@${digest}`].some(looksLikeDigest)).to.equal(false);
  });
});
