import { expect } from 'chai';
import { maxCheckpoints, SpanRule } from '../../src/deflate/checkpoint.js';
import type { BlockStart } from '../../src/deflate/gzip-scanner.js';

const MIB = 1 << 20;

/** Output offsets of the checkpoints, for blocks of a size, compressed to a fraction of it. */
function checkpoints(spanSize: number, blocks: number, blockSize: number, ratio: number): number[] {
  const rule = new SpanRule(spanSize);
  const found: number[] = [];
  for (let block = 0; block < blocks; block++) {
    const output = block * blockSize;
    const start: BlockStart = { input: 10 + Math.floor(output / ratio), bits: 0, output };
    if (rule.begins(start)) found.push(output);
  }
  return found;
}

describe('the rule of checkpoints', () => {
  it('has spans of one size, as SOCI has, for the first thousand', () => {
    const found = checkpoints(4 * MIB, 16_000, MIB / 4, 3);
    expect(found).to.deep.equal(found.map((_, index) => index * 4.25 * MIB));
  });

  it('bounds their number, however large a layer is', () => {
    const found = checkpoints(4 * MIB, 400_000, MIB, 1.5);
    expect(found.length).to.be.lessThan(8193);
    // 400 GiB: the last span that can be read by itself is far behind the middle.
    expect(found.at(-1)!).to.be.greaterThan(150 * 1024 * MIB);
    for (const [index, output] of found.entries())
      if (index > 0) expect(output - found[index - 1]!).to.be.lessThan(34 * MIB);
  });

  it('bounds their windows by the size of the layer, however far it expands', () => {
    for (const ratio of [1, 3, 200, 1032]) {
      const found = checkpoints(1000, 50_000, 900, ratio);
      expect(found.length).to.be.at.most(maxCheckpoints((50_000 * 900) / ratio + 10));
    }
  });
});
