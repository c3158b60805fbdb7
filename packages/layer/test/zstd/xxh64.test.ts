import { expect } from 'chai';
import fc from 'fast-check';
import { Xxh64 } from '../../src/zstd/xxh64.js';

function hash(...parts: readonly Uint8Array[]): string {
  const hasher = new Xxh64();
  for (const part of parts) hasher.update(part);
  return hasher.digest().toString(16).padStart(16, '0');
}

describe('XXH64', () => {
  it('is what the specification says', () => {
    expect(hash()).to.equal('ef46db3751d8e999');
    expect(hash(Buffer.from('a'))).to.equal('d24ec4f1a98c6e5b');
    expect(hash(Buffer.from('abc'))).to.equal('44bc2cf5ad770999');
    expect(hash(Buffer.from('Nobody inspects the spammish repetition'))).to.equal('fbcea83c8a378bf1');
  });

  it('does not depend on the portions', () => {
    fc.assert(
      fc.property(
        fc.uint8Array({ maxLength: 300 }),
        fc.nat({ max: 300 }),
        fc.nat({ max: 300 }),
        (bytes, a, b) => {
          const [from, to] = a < b ? [a, b] : [b, a];
          const parts = [bytes.subarray(0, from), bytes.subarray(from, to), bytes.subarray(to)];
          expect(hash(...parts)).to.equal(hash(bytes));
        },
      ),
    );
  });
});
