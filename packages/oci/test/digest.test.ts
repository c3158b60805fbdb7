import { expect } from 'chai';
import fc from 'fast-check';
import { Digester, digestOf, isLayercacheError, parseDigest } from '../src/index.js';

describe('parseDigest', () => {
  it('accepts sha256 and sha512 in lower case', () => {
    for (const algorithm of ['sha256', 'sha512'] as const) {
      const digest = digestOf('x', algorithm);
      expect(parseDigest(digest)).to.equal(digest);
    }
  });

  const refused = [
    'sha256:../../x',
    `sha256:${'../'.repeat(21)}x`,
    `sha256:${'A'.repeat(64)}`,
    `sha256:${'a'.repeat(63)}`,
    `sha256:${'a'.repeat(65)}`,
    `sha256:${'a'.repeat(64)}\n`,
    `sha512:${'a'.repeat(64)}`,
    `md5:${'a'.repeat(32)}`,
    `blake3:${'a'.repeat(64)}`,
    'a'.repeat(64),
    '',
  ];
  for (const text of refused) {
    it(`refuses ${JSON.stringify(text.slice(0, 40))}`, () => {
      try {
        parseDigest(text);
        expect.fail('accepted');
      } catch (error) {
        expect(isLayercacheError(error, 'DIGEST_INVALID'), String(error)).to.equal(true);
      }
    });
  }

  it('never accepts what could leave a folder', () => {
    fc.assert(
      fc.property(fc.string(), (text) => {
        try {
          expect(parseDigest(text)).to.match(/^sha(256|512):[0-9a-f]+$/);
        } catch (error) {
          expect(isLayercacheError(error, 'DIGEST_INVALID')).to.equal(true);
        }
      }),
    );
  });
});

describe('Digester', () => {
  it('gives the digest of all chunks together, and counts their bytes', () => {
    const digester = new Digester();
    digester.update(Buffer.from('ab'));
    digester.update(Buffer.from('c'));
    expect(digester.size).to.equal(3);
    expect(digester.digest()).to.equal(
      'sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad',
    );
  });
});
