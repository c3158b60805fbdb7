// Shows that layer indexes and the merged view are right: the same bytes however they were made, and what two
// other ways of working them out say.
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { LayerCache } from '@layercache/cache';
import { formatJson, formatMtree, formatText } from '@layercache/layer';
import { MemoryRegistry, RegistryClient, createRegistryServer } from '@layercache/registry';
import { differences, listingOfFacts, listingOfFolder, listingOfView, sha256 } from './listing.mjs';
import { literalFiles } from './literal-model.mjs';
import { pushLayers } from './synthetic-image.mjs';
import { LAYERS } from './synthetic-layers.mjs';
import { hasUmoci, isRoot, listingOfUmoci } from './umoci.mjs';

/** Small, so that the image has many checkpoints. */
const SPAN_SIZE = 64 << 10;
/** Of a long diff. */
const SHOWN = 40;

const ON_DISK = ['type', 'mode', 'owner', 'seconds', 'size', 'sha256', 'target', 'device', 'names'];
const ALL = [...ON_DISK, 'nanoseconds', 'xattrs'];

/** Prints a report and resolves with whether everything agreed. */
export async function verify() {
  const dir = await mkdtemp(join(tmpdir(), 'layercache-harness-'));
  const server = createRegistryServer(new MemoryRegistry());
  await server.listen({ host: '127.0.0.1', port: 0 });
  try {
    const host = new URL(server.url).host;
    const harness = new Verification(dir, host, new RegistryClient(host));
    await harness.compareRuns();
    await harness.compareWithModel();
    await harness.compareExtracted();
    await harness.compareWithUmoci();
    return harness.agrees;
  } finally {
    await server.close();
    await rm(dir, { recursive: true, force: true });
  }
}

class Verification {
  agrees = true;
  #dir;
  #host;
  #client;

  constructor(dir, host, client) {
    this.#dir = dir;
    this.#host = host;
    this.#client = client;
  }

  get #everything() {
    return `${this.#host}/synthetic/everything:1`;
  }

  /** Cold and one at a time, cold and four at a time, and warm: the same bytes. */
  async compareRuns() {
    const image = await pushLayers(this.#client, 'synthetic/everything', LAYERS);
    const size = image.layers.reduce((sum, layer) => sum + layer.bytes.length, 0);
    console.log(`${this.#everything}: ${image.layers.length} layers, ${size} bytes, pushed to a registry`);
    const runs = [
      await this.#run('cold, one at a time', 'first', { concurrency: 1 }),
      await this.#run('cold, four at a time', 'second', { concurrency: 4 }),
      await this.#run('warm', 'second', { concurrency: 4 }),
    ];
    const [first, ...others] = runs;
    for (const other of others) {
      const lines = Object.keys(first.bytes)
        .filter((what) => first.bytes[what] !== other.bytes[what])
        .map(
          (what) => `! ${what}: ${other.title} has ${other.bytes[what]}, ${first.title} ${first.bytes[what]}`,
        );
      const count = Object.keys(first.bytes).length;
      this.#say(
        `${other.title} gives the bytes of ${first.title}: ${count - 3} zTOCs, text, json, mtree`,
        lines,
      );
    }
    const { report, received } = runs.at(-1);
    const idle = report.hits === report.layers.length && report.bytesRead === 0 && received === 0;
    this.#say(
      'warm reads nothing',
      idle ? [] : [`! ${report.hits} hits, ${report.bytesRead} bytes read, ${received} received`],
    );
  }

  async #run(title, folder, { concurrency }) {
    return this.#withCache(folder, async (cache) => {
      const name = this.#everything;
      await cache.add(name);
      const before = this.#client.traffic.bytesReceived;
      const start = performance.now();
      const report = await cache.index(name, { concurrency, spanSize: SPAN_SIZE });
      const view = await cache.view(name);
      const milliseconds = performance.now() - start;
      const { hits, layers, files, bytesRead } = report;
      console.log(
        `  ${title.padEnd(21)} ${layers.length} layers, ${hits} indexed before, ${files} files, ${bytesRead} bytes read, ${milliseconds.toFixed(0)} ms`,
      );
      const bytes = {};
      for (const { indexDigest } of layers) bytes[`zTOC ${indexDigest}`] = await hashOf(cache, indexDigest);
      for (const format of [formatText, formatJson, formatMtree]) {
        bytes[format.name] = sha256([...format(view.merged)].join(''));
      }
      return { title, report, bytes, received: this.#client.traffic.bytesReceived - before };
    });
  }

  /** Everything, contents by random access, against the layer specification read literally. */
  async compareWithModel() {
    const wanted = listingOfFacts(literalFiles(LAYERS));
    await this.#withCache('first', async (cache) => {
      const view = await cache.view(this.#everything);
      const found = await listingOfView(view);
      this.#say(`the view is the literal model: ${counted(wanted, ALL)}`, differences(found, wanted, ALL));
      console.log(`  ${view.merged.notes.length} notes on what the layers leave to interpretation`);
    });
  }

  /** The same on disk, as far as this user may set owners and Node can make what there is. */
  async compareExtracted() {
    const wanted = listingOfFacts(literalFiles(LAYERS));
    const fields = isRoot ? ON_DISK : ON_DISK.filter((field) => field !== 'owner' && field !== 'mode');
    await this.#withCache('first', async (cache) => {
      const view = await cache.view(this.#everything);
      const folder = join(this.#dir, 'everything');
      const { skipped } = await view.extract(folder);
      for (const path of skipped) wanted.delete(path);
      const lines = differences(listingOfFolder(folder), wanted, fields);
      const left = `but for ${skipped.length} devices and FIFOs`;
      this.#say(`the extracted image is the literal model: ${counted(wanted, fields)}, ${left}`, lines);
    });
  }

  /** What umoci can represent, in the view and extracted, against what it unpacks. */
  async compareWithUmoci() {
    if (!hasUmoci || !isRoot) {
      console.log(`not asked: umoci (${hasUmoci ? 'only root can unpack owners' : 'it is not installed'})`);
      return;
    }
    const layers = LAYERS.map((layer) => ({
      ...layer,
      entries: layer.entries.filter(({ unlike }) => unlike === undefined),
    }));
    const name = `${this.#host}/synthetic/unpackable:1`;
    await pushLayers(this.#client, 'synthetic/unpackable', layers, 'gzip');
    const implied = listingOfFacts(literalFiles(layers));
    // umoci leaves the time of folders that no entry makes, and of the root, as it happens to be.
    const ignores = (path, field) =>
      field === 'seconds' && (path === '' || implied.get(path)?.isImplied === true);
    await this.#withCache('first', async (cache) => {
      await cache.add(name);
      const layout = join(this.#dir, 'layout');
      await cache.export(name, `oci:${layout}:image`);
      const wanted = listingOfUmoci(layout, 'image', this.#dir);
      const view = await cache.view(name);
      const found = await listingOfView(view);
      const what = counted(wanted, ON_DISK);
      this.#say(`the view is what umoci unpacks: ${what}`, differences(found, wanted, ON_DISK, ignores));
      const folder = join(this.#dir, 'extracted');
      const { skipped } = await view.extract(folder);
      for (const path of skipped) wanted.delete(path);
      const extracted = listingOfFolder(folder);
      this.#say(
        `the extracted image is what umoci unpacks, but for ${skipped.length} devices and FIFOs`,
        differences(extracted, wanted, ON_DISK, ignores),
      );
    });
    const left = LAYERS.flatMap(({ entries }) => entries.flatMap(({ unlike }) => unlike ?? []));
    console.log(`  ${left.length} entries left out, since with umoci`);
    for (const reason of new Set(left)) console.log(`    ${reason}`);
  }

  async #withCache(folder, work) {
    const cache = await LayerCache.open(join(this.#dir, folder), { registry: () => this.#client });
    try {
      return await work(cache);
    } finally {
      await cache.close();
    }
  }

  #say(what, lines) {
    console.log(`${lines.length === 0 ? 'ok   ' : 'FAIL '} ${what}`);
    for (const line of lines.slice(0, SHOWN)) console.log(`  ${line}`);
    if (lines.length > SHOWN) console.log(`  and ${lines.length - SHOWN} more`);
    if (lines.length > 0) this.agrees = false;
  }
}

function counted(listing, fields) {
  return `${listing.size} names, ${fields.length} fields each`;
}

async function hashOf(cache, digest) {
  const chunks = [];
  for await (const bytes of await cache.blob(digest)) chunks.push(bytes);
  return sha256(Buffer.concat(chunks));
}
