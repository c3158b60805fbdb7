import { createHash } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { expect } from 'chai';
import { Annotation, type Digest } from '@layercache/oci';
import { OciLayout } from '@layercache/layout';
import type { LayerCache } from '../../src/index.js';
import { imageOf, layerOf, pushImage, tarOf } from '../image-builder.js';
import { Scratch, memoryRegistry } from '../test-cache.js';
import { Browser } from './browser.js';
import { itWith } from './tools.js';

/** Bytes that no compressor makes fewer. */
function noise(blocks: number, seed: string): Uint8Array {
  const block = (_: unknown, position: number): Uint8Array =>
    createHash('sha256').update(`${seed} ${position}`).digest();
  return Buffer.concat(Array.from({ length: blocks }, block));
}

const base = layerOf(tarOf({ base: noise(3000, 'base') }));
const shop = layerOf(tarOf({ shop: noise(1500, 'shop') }));
const images = {
  'team/base:1': imageOf([base]),
  'team/shop:1': imageOf([base, shop]),
  'team/admin:1': imageOf([base, layerOf(tarOf({ admin: noise(1000, 'admin') }))]),
};

const HOSTILE = [
  '</script><script>globalThis.broken = 1</script>',
  '<img src=https://example.invalid/x onerror="globalThis.broken = 1">',
  '--><!--<script>',
  '"\'><svg onload=globalThis.broken=1>',
];

const scratch = new Scratch();

async function cacheOf(names: readonly string[]): Promise<LayerCache> {
  const registry = memoryRegistry();
  const cache = await scratch.cache({ registry: () => registry });
  for (const [name, image] of Object.entries(images)) {
    const [repository = '', tag] = name.split(':');
    await pushImage(registry, repository, tag, image);
    await cache.add(`registry.example/${name}`);
  }
  const layout = await OciLayout.open(cache.dir);
  for (const name of names) {
    const { descriptor } = images['team/admin:1'];
    await layout.put({ ...descriptor, annotations: { [Annotation.refName]: name } });
  }
  await layout.close();
  return cache;
}

/** Opens the report of a cache, and clears away after. */
async function withReport(names: readonly string[], use: (browser: Browser) => Promise<void>): Promise<void> {
  const browser = await Browser.start();
  try {
    const { html } = await (await cacheOf(names)).report();
    const file = join(await scratch.dir(), 'report.html');
    await writeFile(file, html);
    await browser.open(pathToFileURL(file).href);
    await use(browser);
    expect(browser.complaints).to.deep.equal([]);
    expect(browser.requests).to.deep.equal([]);
  } finally {
    await browser.close();
    await scratch.clean();
  }
}

const text = (selector: string): string => `document.querySelector(${JSON.stringify(selector)}).textContent`;
const tileOf = (name: string): string => `#treemap [role=treeitem][aria-level="1"][aria-label*="${name}"]`;
const short = (digest: Digest): string => digest.slice(0, 19);

describe('the HTML report in a browser', () => {
  itWith(['chromium'], 'draws the cache without asking for anything', () =>
    withReport([], async (browser) => {
      expect(await browser.evaluate(text('#totals'))).to.match(/images\s*3/);
      expect(await browser.evaluate(text('#treemap'))).to.contain('shared by several images');
      expect(await browser.evaluate(text('#images'))).to.contain('registry.example/team/shop:1');
      expect(await browser.evaluate(text('#layers tbody tr')))
        .to.contain(short(base.diffID))
        .and.to.contain('3');
      const covered = await browser.evaluate<number>(`(() => {
        const area = ({ width, height }) => width * height;
        const all = area(document.querySelector('#treemap svg').getBoundingClientRect());
        const top = [...document.querySelectorAll('#treemap [aria-level="1"] > rect')];
        return top.reduce((sum, each) => sum + area(each.getBoundingClientRect()), 0) / all;
      })()`);
      expect(covered).to.be.within(0.93, 1);
    }),
  );

  itWith(['chromium'], 'shows hostile names as they are, and runs none of them', () =>
    withReport(HOSTILE, async (browser) => {
      const names = await browser.evaluate<string>(text('#images'));
      for (const name of HOSTILE) expect(names).to.contain(name);
      expect(await browser.evaluate('globalThis.broken === undefined')).to.equal(true);
      expect(await browser.evaluate('document.scripts.length')).to.equal(2);
      expect(await browser.evaluate('document.images.length')).to.equal(0);
    }),
  );

  itWith(['chromium'], 'looks into an image by a click, and back', () =>
    withReport([], async (browser) => {
      await browser.click(`${tileOf('team/shop:1')} > rect`);
      expect(await browser.evaluate(text('#treemap-path'))).to.contain('registry.example/team/shop:1');
      const inside = await browser.evaluate<string>(text('#treemap'));
      expect(inside).to.contain(short(base.diffID)).and.to.contain(short(shop.diffID));
      await browser.click('#treemap-path button');
      expect(await browser.evaluate(text('#treemap'))).to.contain('shared by several images');
    }),
  );

  itWith(['chromium'], 'is gone through with the keyboard', () =>
    withReport([], async (browser) => {
      await browser.evaluate(`document.querySelector('#treemap [tabindex="0"]').focus()`);
      const focused = (): Promise<string> =>
        browser.evaluate(`document.activeElement.getAttribute('aria-label')`);
      expect(await focused()).to.contain('what several images need');
      expect(await browser.evaluate(text('#treemap-detail'))).to.equal(await focused());
      await browser.press('ArrowRight');
      expect(await focused()).to.contain('team/shop:1');
      await browser.press('ArrowDown');
      expect(await focused()).to.contain(`layer ${shop.diffID}`);
      await browser.press('ArrowUp');
      await browser.press('Enter');
      expect(await browser.evaluate(text('#treemap-path'))).to.contain('team/shop:1');
      await browser.press('Escape');
      expect(await browser.evaluate(text('#treemap-path'))).not.to.contain('team/shop:1');
      expect(await focused()).to.contain('what several images need');
    }),
  );

  itWith(['chromium'], 'finds images and layers, and makes the rest pale', () =>
    withReport([], async (browser) => {
      await browser.press('/');
      expect(await browser.evaluate('document.activeElement.id')).to.equal('search');
      await browser.type('ShOp');
      expect(await browser.evaluate(text('#found'))).to.equal('found: 1 image, 0 layers');
      const pale = `[...document.querySelectorAll('#treemap [aria-level="1"].pale')].map((tile) => tile.getAttribute('aria-label')).join()`;
      expect(await browser.evaluate(pale))
        .to.contain('team/admin:1')
        .and.not.to.contain('team/shop:1');
      await browser.evaluate(`document.querySelector('#search').value = ''`);
      await browser.type(shop.descriptor.digest);
      expect(await browser.evaluate(text('#found'))).to.equal('found: 0 images, 1 layer');
      expect(await browser.evaluate(pale)).not.to.contain('team/shop:1');
    }),
  );

  itWith(['chromium'], 'sorts its tables', () =>
    withReport([], async (browser) => {
      const first = text('#images tbody th');
      expect(await browser.evaluate(first)).to.contain('team/shop:1');
      await browser.click('#images thead th:first-child button');
      expect(await browser.evaluate(first)).to.contain('team/admin:1');
      expect(await browser.evaluate(`document.querySelector('#images [aria-sort]').textContent`)).to.equal(
        'Image',
      );
    }),
  );

  itWith(['chromium'], 'follows the colours of the system until somebody chooses', () =>
    withReport([], async (browser) => {
      const brightness = `getComputedStyle(document.body).backgroundColor.match(/\\d+/g).slice(0, 3).map(Number).reduce((a, b) => a + b)`;
      await browser.prefer('dark');
      expect(await browser.evaluate(brightness)).to.be.lessThan(200);
      await browser.prefer('light');
      expect(await browser.evaluate(brightness)).to.be.greaterThan(600);
      await browser.click('#theme');
      expect(await browser.evaluate(brightness)).to.be.lessThan(200);
      expect(await browser.evaluate(text('#theme'))).to.equal('Light');
    }),
  );
});
