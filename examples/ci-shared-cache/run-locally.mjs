// Runs the two jobs of the CI files on this machine, each with an empty cache folder of its own as on a fresh
// runner, against a registry that this program starts.
//
//   node examples/ci-shared-cache/run-locally.mjs
import { execFile } from 'node:child_process';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { gzipSync } from 'node:zlib';
import { MediaType, digestOf } from '@layercache/oci';
import { MemoryRegistry, createRegistryServer } from '@layercache/registry';
import { create } from 'tar';

const program = fileURLToPath(new URL('../../packages/cli/bin/layercache.js', import.meta.url));
const run = promisify(execFile);

/** Requests for the base image: what a public registry would count. */
let baseRequests = 0;
const registry = new MemoryRegistry();
const server = createRegistryServer(registry, {
  wrap: (handler) => (request, response) => {
    if (request.url?.startsWith('/v2/library/')) baseRequests += 1;
    handler(request, response);
  },
});
await server.listen({ host: '127.0.0.1', port: 0 });
const { host } = new URL(server.url);
const dir = await mkdtemp(join(tmpdir(), 'ci-shared-cache-'));
const base = `${host}/library/base:1`;
const shared = `${host}/team/cache:main`;
try {
  const diffID = await pushBase('library/base', '1');
  await job('build', async (layercache) => {
    await layercache('pull', '--lazy', shared).catch(() =>
      console.log('  no cache yet: this is the first job'),
    );
    await layercache('add', base);
    await layercache('export', base, '--to', `oci:${join(dir, 'base')}:base`);
    await layercache('push', shared);
  });
  await job('test', async (layercache) => {
    await layercache('pull', '--lazy', shared);
    await layercache('export', base, '--to', `oci:${join(dir, 'again')}:base`);
    await layercache('get', diffID, '-o', join(dir, 'layer.tar'));
  });
} finally {
  await server.close();
  await rm(dir, { recursive: true });
}

async function job(name, steps) {
  console.log(`job ${name}`);
  const before = baseRequests;
  await steps(async (...args) => {
    console.log(`  layercache ${args.join(' ')}`);
    const env = { ...process.env, LAYERCACHE_DIR: join(dir, name) };
    const { stderr } = await run(process.execPath, [program, ...args], { env });
    for (const line of stderr.trim().split('\n').filter(Boolean)) console.log(`    ${line}`);
  });
  console.log(`  requests for the base image: ${baseRequests - before}\n`);
}

/** An image of one layer, as a public registry would have it. Resolves with the diffID of the layer. */
async function pushBase(repository, tag) {
  await mkdir(join(dir, 'root', 'bin'), { recursive: true });
  await writeFile(join(dir, 'root', 'bin', 'tool'), Buffer.alloc(1_000_000, 'a tool\n'));
  const chunks = [];
  for await (const chunk of create({ cwd: join(dir, 'root'), portable: true }, ['bin'])) chunks.push(chunk);
  const tar = Buffer.concat(chunks);
  const layer = await pushBlob(repository, MediaType.layerGzip, gzipSync(tar));
  const rootfs = { type: 'layers', diff_ids: [digestOf(tar)] };
  const config = await pushBlob(
    repository,
    MediaType.config,
    json({ os: 'linux', architecture: arch(), rootfs }),
  );
  const manifest = { schemaVersion: 2, mediaType: MediaType.manifest, config, layers: [layer] };
  await registry.pushManifest(repository, MediaType.manifest, json(manifest), { tag });
  return digestOf(tar);
}

async function pushBlob(repository, mediaType, bytes) {
  const descriptor = { mediaType, digest: digestOf(bytes), size: bytes.length };
  await registry.pushBlob(repository, descriptor, () => [bytes]);
  return descriptor;
}

function json(value) {
  return Buffer.from(JSON.stringify(value));
}

function arch() {
  return process.arch === 'x64' ? 'amd64' : process.arch;
}
