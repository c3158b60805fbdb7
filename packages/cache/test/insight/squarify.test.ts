import { expect } from 'chai';
import fc from 'fast-check';
import { squarify, type Rectangle } from '../../report-page/squarify.js';

const weights = fc
  .array(fc.integer({ min: 1, max: 1_000_000 }), { minLength: 1, maxLength: 60 })
  .map((list) => list.sort((a, b) => b - a));
const frame = fc.record({
  x: fc.integer({ min: 0, max: 50 }),
  y: fc.integer({ min: 0, max: 50 }),
  width: fc.integer({ min: 10, max: 2000 }),
  height: fc.integer({ min: 10, max: 2000 }),
});
const area = ({ width, height }: Rectangle): number => width * height;

describe('a squarified treemap', () => {
  it('gives each weight its share of the area', () => {
    fc.assert(
      fc.property(weights, frame, (list, within) => {
        const total = list.reduce((sum, weight) => sum + weight, 0);
        squarify(list, within).forEach((rectangle, position) => {
          const share = (list[position]! / total) * area(within);
          expect(area(rectangle)).to.be.closeTo(share, 1e-6 * area(within));
        });
      }),
    );
  });

  it('stays within its frame, and overlaps nowhere', () => {
    fc.assert(
      fc.property(weights, frame, (list, within) => {
        const placed = squarify(list, within);
        const slack = 1e-6 * (within.width + within.height);
        for (const [position, a] of placed.entries()) {
          expect(a.x).to.be.at.least(within.x - slack);
          expect(a.y).to.be.at.least(within.y - slack);
          expect(a.x + a.width).to.be.at.most(within.x + within.width + slack);
          expect(a.y + a.height).to.be.at.most(within.y + within.height + slack);
          for (const b of placed.slice(position + 1)) {
            const wide = Math.min(a.x + a.width, b.x + b.width) - Math.max(a.x, b.x);
            const high = Math.min(a.y + a.height, b.y + b.height) - Math.max(a.y, b.y);
            expect(Math.min(wide, high)).to.be.at.most(slack);
          }
        }
      }),
    );
  });

  it('keeps equal weights nearly square', () => {
    const placed = squarify(Array<number>(12).fill(1), { x: 0, y: 0, width: 400, height: 300 });
    for (const { width, height } of placed) expect(width / height).to.be.within(0.5, 2);
  });

  it('places nothing where there is nothing, and gives weights of nothing no area', () => {
    expect(squarify([], { x: 0, y: 0, width: 10, height: 10 })).to.deep.equal([]);
    const placed = squarify([0, 0], { x: 0, y: 0, width: 10, height: 10 });
    expect(placed.map(area)).to.deep.equal([0, 0]);
  });
});
