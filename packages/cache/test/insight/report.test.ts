import { createHash } from 'node:crypto';
import { expect } from 'chai';
import { Annotation } from '@layercache/oci';
import { OciLayout } from '@layercache/layout';
import type { ReportData } from '../../report-page/report-data.js';
import { cacheTree, type TreeNode } from '../../report-page/treemap-tree.js';
import { imageOf, layerOf, pushImage, tarOf } from '../image-builder.js';
import { Scratch, bytesOf, memoryRegistry } from '../test-cache.js';
import type { LayerCache } from '../../src/index.js';

const scratch = new Scratch();
afterEach(() => scratch.clean());

const base = layerOf(tarOf({ base: 'shared'.repeat(1000) }));
const first = imageOf([base, layerOf(tarOf({ first: 'one' }))]);
const second = imageOf([base, layerOf(tarOf({ second: 'two' }))]);

async function cacheOfBoth(): Promise<LayerCache> {
  const registry = memoryRegistry();
  await pushImage(registry, 'team/first', '1', first);
  await pushImage(registry, 'team/second', '1', second);
  const cache = await scratch.cache({ registry: () => registry });
  await cache.add('registry.example/team/first:1');
  await cache.add('registry.example/team/second:1');
  await bytesOf(cache.layer(base.diffID).uncompressed());
  return cache;
}

function dataIn(html: string): ReportData {
  const [, json = ''] = /<script type="application\/json" id="data">(.*?)<\/script>/s.exec(html) ?? [];
  return JSON.parse(json) as ReportData;
}

function leaves(node: TreeNode): TreeNode[] {
  return node.children.length === 0 ? [node] : node.children.flatMap(leaves);
}

describe('the HTML report', () => {
  it('shows every byte of every blob once', async () => {
    const { html, stats } = await (await cacheOfBoth()).report();
    const tree = cacheTree(dataIn(html));
    expect(tree.size).to.equal(stats.disk.blobs);
    expect(leaves(tree).reduce((sum, { size }) => sum + size, 0)).to.equal(stats.disk.blobs);
  });

  it('puts what images share beside them, and shows it in each when looked into', async () => {
    const { html } = await (await cacheOfBoth()).report();
    const tree = cacheTree(dataIn(html));
    const shared = tree.children.find(({ label }) => label === 'shared by several images');
    expect(shared?.size).to.equal(base.bytes.length + base.tar.length);
    const image = tree.children.find(({ label }) => label.includes('team/first'));
    const has = (nodes: readonly TreeNode[]): boolean => nodes.some(({ text }) => text.includes(base.diffID));
    expect(has(image!.children)).to.equal(false);
    expect(has(image!.inside!())).to.equal(true);
  });

  it('says what was done with the cache in all its runs', async () => {
    const cache = await cacheOfBoth();
    const { counters } = cache.metrics.total();
    const { activity } = dataIn((await cache.report()).html);
    expect(activity).to.deep.include({ hits: counters.hits, misses: counters.misses });
    expect(activity.bytesDownloaded).to.equal(counters.bytesDownloaded).and.to.be.greaterThan(0);
    expect(activity.operations.find(({ name }) => name === 'add')).to.include({ count: 2, errors: 0 });
  });

  it('is one file: no address in it but that of a namespace, and a policy that lets nothing through', async () => {
    const { html } = await (await cacheOfBoth()).report();
    const addresses = html.match(/\b[a-z]+:\/\/[^\s'"`)]+/g) ?? [];
    expect([...new Set(addresses)]).to.deep.equal(['http://www.w3.org/2000/svg']);
    expect(html).not.to.match(/\bimport\b[^\n]*from|<link|@import|url\(/);
    const [, script = ''] = /<script type="module">(.*)<\/script>/s.exec(html) ?? [];
    const hash = createHash('sha256').update(script).digest('base64');
    expect(html).to.contain(`default-src 'none'; script-src 'sha256-${hash}'; style-src 'sha256-`);
  });

  it('embeds names that would break out of it as data', async () => {
    const cache = await cacheOfBoth();
    const name = '</script><script>alert(1)</script><!-- \u2028 &amp;';
    const layout = await OciLayout.open(cache.dir);
    await layout.put({ ...first.descriptor, annotations: { [Annotation.refName]: name } });
    await layout.close();
    const { html } = await cache.report();
    expect(html.match(/<\/script>/g)).to.have.length(2);
    expect(html.match(/<script/g)).to.have.length(2);
    expect(html).not.to.contain('<!--');
    expect(dataIn(html).images.flatMap(({ names }) => names)).to.include(name);
  });
});
