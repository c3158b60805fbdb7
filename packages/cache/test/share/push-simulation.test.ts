import { expect } from 'chai';
import { Scratch } from '../test-cache.js';
import { openMachines, simulatePushes, type Machine, type SimulationOptions } from './push-simulation.js';

describe('machines that push to one tag, each request taking up to five seconds each way', function () {
  // Each is a simulation of many requests, in simulated time.
  this.timeout(60_000);
  const scratch = new Scratch();
  let machines: Machine[];
  before(async () => {
    machines = await openMachines(await scratch.dir(), 4);
  });
  after(async () => {
    for (const { layout } of machines) await layout.close();
    await scratch.clean();
  });

  const each = async (
    runs: number,
    options: Omit<SimulationOptions, 'seed' | 'maxDelay'>,
    check: (result: Awaited<ReturnType<typeof simulatePushes>>, seed: number) => void,
  ): Promise<void> => {
    for (let seed = 1; seed <= runs; seed++)
      check(await simulatePushes(machines, { ...options, seed, maxDelay: 5000 }), seed);
  };

  it('lose nothing that was acknowledged, and end with one tag that has all and its pending tag', () =>
    each(40, {}, ({ acknowledged, lost, isMainWhole, tags }, seed) => {
      expect(lost, `seed ${seed}`).to.deep.equal([]);
      expect(acknowledged).to.equal(4);
      expect(isMainWhole, `seed ${seed}`).to.equal(true);
      expect(tags, `seed ${seed}`).to.have.length(2);
    }));

  it('lose nothing when some are killed at any point', () =>
    each(40, { crashes: 0.4 }, ({ lost }, seed) => {
      expect(lost, `seed ${seed}`).to.deep.equal([]);
    }));

  it('lose nothing where the registry removes no tags, and leave few behind', () =>
    each(20, { refuses: { deletes: true } }, ({ acknowledged, lost, tags }, seed) => {
      expect(lost, `seed ${seed}`).to.deep.equal([]);
      expect(acknowledged).to.equal(4);
      expect(tags.length, `seed ${seed}`).to.be.at.most(12);
    }));
});
