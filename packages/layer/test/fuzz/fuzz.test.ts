import { expect } from 'chai';
import { fuzz } from './fuzz-target.js';
import { targets } from './targets.js';

const COUNT = 2000;

describe('changed bytes', () => {
  for (const [index, target] of targets.entries()) {
    it(`of ${target.name} are decoded, or refused with a code`, async () => {
      const { taken, refused } = await fuzz(target, COUNT, 20_261 + index);
      expect(taken + refused).to.equal(COUNT * (target.share ?? 1));
      // Changes that reach only one of the two would show little.
      expect(taken).to.be.greaterThan(2);
      if (target.codes.length > 0) expect(refused).to.be.greaterThan(200);
    });
  }
});
