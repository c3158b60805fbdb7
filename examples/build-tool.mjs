// A build tool in a hundred lines, with the cache below it: it unpacks a base image, runs a step on top, and makes
// an image of the result. What a step made is kept as a layer, so a step whose inputs are the same is not run again;
// the second build asks the registry one question and for no byte of a layer.
//
//   node examples/build-tool.mjs
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { LayerCache } from '@layercache/cache';
import { MediaType, digestOf } from '@layercache/oci';
import { configOf, json, kilobytes, pack, startRegistry } from './embedded-registry.mjs';

const dir = await mkdtemp(join(tmpdir(), 'build-tool-'));
const registry = await startRegistry();
let stepsRun = 0;
try {
  const source = join(dir, 'source');
  await mkdir(join(source, 'bin'), { recursive: true });
  await writeFile(join(source, 'bin', 'compiler'), 'a compiler that shouts\n'.repeat(50_000));
  await registry.pushImage('library/toolchain:1', source, ['bin']);
  const base = `${registry.host}/library/toolchain:1`;

  const first = await build('build 1', base, 'hello\n');
  const second = await build('build 2, nothing changed', base, 'hello\n');
  const third = await build('build 3, another program', base, 'goodbye\n');

  assert.equal(first.digest, second.digest, 'the same inputs give the same image');
  assert.notEqual(first.digest, third.digest);
  assert.equal(stepsRun, 2, 'the step of build 2 came from the cache');
  assert.ok(first.fetched > 0);
  assert.equal(second.fetched + third.fetched, 0, 'the base was fetched once');

  // The image is one like any other: other tools take it from here.
  const cache = await LayerCache.open(join(dir, 'cache'));
  await cache.export(third.name, `oci-archive:${join(dir, 'app.tar')}`);
  console.log('exported as an OCI archive');
  const file = await cache.openFile(third.name, '/app/program');
  assert.equal(Buffer.concat(await file.toArray()).toString(), 'GOODBYE\n');
  await cache.close();
} finally {
  await registry.close();
  await rm(dir, { recursive: true });
}

/** One run of the tool: its process would end after it. */
async function build(title, base, program) {
  console.log(title);
  const cache = await LayerCache.open(join(dir, 'cache'));
  try {
    const from = await cache.add(base);
    console.log(`  base: ${kilobytes(from.fetched)} fetched, ${kilobytes(from.reused)} were here`);
    const layers = from.layers.map(({ digest }) => cache.layer(digest));

    // The result of the step is an image whose name says all that it depends on.
    const inputs = [...layers.map(({ diffID }) => diffID), program].join('\n');
    const name = `example.local/step:${createHash('sha256').update(inputs).digest('hex').slice(0, 32)}`;
    const known = [...cache.images()].find((image) => image.name === name);
    if (known !== undefined) console.log('  step: its result is in the cache');
    const { digest } = known?.descriptor ?? (await runStep(cache, base, layers, program, name));
    console.log(`  image ${digest.slice(0, 19)}`);
    return { name, digest, fetched: from.fetched };
  } finally {
    await cache.close();
  }
}

/** The step sees the files of the base, and leaves a folder that becomes a layer. */
async function runStep(cache, base, layers, program, name) {
  stepsRun += 1;
  const root = join(dir, `root-${stepsRun}`);
  const { names } = await (await cache.view(base)).extract(root);
  console.log(`  step: run on ${names} files and folders of the base`);
  assert.match(await readFile(join(root, 'bin', 'compiler'), 'utf8'), /shouts/);
  await mkdir(join(root, 'app'));
  await writeFile(join(root, 'app', 'program'), program.toUpperCase());
  const tar = await pack(root, ['app']);

  // The cache is a registry, too: what is pushed to it becomes an image of the cache, with its layers in pairs.
  const registry = cache.registry();
  const [repository, tag] = name.split(':');
  const push = async (mediaType, bytes) => {
    const descriptor = { mediaType, digest: digestOf(bytes), size: bytes.length };
    await registry.pushBlob(repository, descriptor, () => [bytes]);
    return descriptor;
  };
  const own = await push(MediaType.layerGzip, gzipSync(tar));
  const config = await push(
    MediaType.config,
    configOf([...layers.map(({ diffID }) => diffID), digestOf(tar)]),
  );
  const manifest = {
    schemaVersion: 2,
    mediaType: MediaType.manifest,
    config,
    layers: [...layers.map(({ compressedForms: [form] }) => plain(form)), own],
  };
  return registry.pushManifest(repository, MediaType.manifest, json(manifest), { tag });
}

/** A descriptor without what the cache notes on it. */
function plain({ mediaType, digest, size }) {
  return { mediaType, digest, size };
}
