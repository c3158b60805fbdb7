import { expect } from 'chai';
import type { Registry } from '@layercache/registry';
import { diffImages, type LayerCache } from '../../src/index.js';
import { imageOf, layerOf, pushImage, tarOf } from '../image-builder.js';
import { Scratch, memoryRegistry } from '../test-cache.js';

describe('the difference of two images', () => {
  const scratch = new Scratch();
  afterEach(() => scratch.clean());

  /** Files of numbers: enough of them make reading the layer once worth it. */
  const files = (count: number, text: (index: number) => string): Record<string, string> =>
    Object.fromEntries(Array.from({ length: count }, (_, index) => [`f${index}`, text(index)]));

  async function changes(
    before: Record<string, string>,
    after: Record<string, string>,
  ): Promise<{ lines: string[]; cache: LayerCache }> {
    const registry: Registry = memoryRegistry();
    const cache = await scratch.cache({ registry: () => registry });
    for (const [tag, content] of Object.entries({ before, after })) {
      await pushImage(registry, 'app', tag, imageOf([layerOf(tarOf(content))]));
      await cache.add(`registry.test/app:${tag}`);
    }
    const [left, right] = [
      await cache.view('registry.test/app:before'),
      await cache.view('registry.test/app:after'),
    ];
    const lines: string[] = [];
    for await (const change of diffImages(left, right)) {
      const aspects = change.kind === 'changed' ? ` ${change.aspects.join()}` : '';
      lines.push(`${change.kind} ${change.path}${aspects}`);
    }
    return { lines, cache };
  }

  for (const count of [5, 250]) {
    it(`tells files that were only moved in the tar from changed ones, ${count} of them`, async () => {
      const before = files(count, (index) => `file ${index}`);
      const after = { added: 'new', ...files(count, (index) => (index === 3 ? 'FILE 3' : `file ${index}`)) };
      const { lines } = await changes(before, after);
      expect(lines).to.deep.equal(['added added', 'changed f3 content']);
    });
  }

  it('keeps no tar for it', async () => {
    const { cache } = await changes(
      files(250, (index) => `a ${index}`),
      files(250, (index) => `b ${index}`),
    );
    for (const layer of cache.layers()) expect(layer.uncompressedForm).to.equal(undefined);
  });
});
