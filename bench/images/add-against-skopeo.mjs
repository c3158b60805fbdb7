// Adding an image of 400 MB from a local docker-registry, against `skopeo copy` into an OCI layout, in turn.
//   node bench/images/add-against-skopeo.mjs [pairs]
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { createGzip } from 'node:zlib';
import { OciLayout } from '@layercache/layout';
import { Annotation, Digester, MediaType } from '@layercache/oci';
import { layercache, median, timed } from './program.mjs';

const WANTED = 400_000_000;
/** Folders of the machine itself, tried in turn until there are enough bytes. */
const FOLDERS = [
  'usr/bin',
  'usr/share',
  'usr/include',
  'usr/lib/x86_64-linux-gnu',
  'usr/lib/gcc',
  'usr/local',
  'usr/lib/jvm',
  'opt',
  'usr/lib',
];
const pairs = Number(process.argv[2] ?? 5);
const dir = await mkdtemp(join(tmpdir(), 'layercache-add-'));

try {
  const { bytes, layers } = await makeImage(join(dir, 'source'));
  const registry = await startRegistry();
  try {
    const image = `${registry.host}/bench/image:1`;
    run('skopeo', [
      'copy',
      '-q',
      '--dest-tls-verify=false',
      `oci:${join(dir, 'source')}:image`,
      `docker://${image}`,
    ]);
    const ratios = [];
    const times = { layercache: [], skopeo: [] };
    for (let pair = 0; pair <= pairs; pair++) {
      const ours = await layercache('--cache', join(dir, 'ours'), 'add', image);
      const theirs = await timed('skopeo', [
        'copy',
        '-q',
        '--src-tls-verify=false',
        `docker://${image}`,
        `oci:${join(dir, 'theirs')}:image`,
      ]);
      await rm(join(dir, 'ours'), { recursive: true });
      await rm(join(dir, 'theirs'), { recursive: true });
      if (pair === 0) continue; // the first warms the page cache
      times.layercache.push(ours.seconds);
      times.skopeo.push(theirs.seconds);
      ratios.push(ours.seconds / theirs.seconds);
    }
    console.log(
      `${(bytes / 1e6).toFixed(0)} MB in ${layers} layers, ${pairs} pairs, Node ${process.version}`,
    );
    console.log(`layercache add  median ${median(times.layercache).toFixed(2)} s`);
    console.log(`skopeo copy     median ${median(times.skopeo).toFixed(2)} s`);
    console.log(
      `ratio           median ${median(ratios).toFixed(2)} (${Math.min(...ratios).toFixed(2)} to ${Math.max(...ratios).toFixed(2)})`,
    );
  } finally {
    await registry.stop();
  }
} finally {
  await rm(dir, { recursive: true, force: true });
}

function run(program, args) {
  const { status, stderr } = spawnSync(program, args, { encoding: 'utf8' });
  if (status !== 0) throw new Error(`${program} failed: ${stderr}`);
}

async function makeImage(path) {
  const layout = await OciLayout.open(path);
  const layers = [];
  const diffIDs = [];
  let bytes = 0;
  for (const folder of FOLDERS) {
    if (bytes >= WANTED) break;
    const tar = spawn('tar', ['-C', '/', '-cf', '-', '--sort=name', folder], {
      stdio: ['ignore', 'pipe', 'ignore'],
    });
    const digester = new Digester();
    const gzip = createGzip({ level: 1 });
    const feeding = (async () => {
      for await (const chunk of tar.stdout) {
        digester.update(chunk);
        if (!gzip.write(chunk)) await once(gzip, 'drain');
      }
      gzip.end();
    })();
    const written = await layout.write(gzip);
    await feeding;
    layers.push({ mediaType: MediaType.layerGzip, ...written });
    diffIDs.push(digester.digest());
    bytes += written.size;
  }
  const config = await layout.write(
    Buffer.from(
      JSON.stringify({ os: 'linux', architecture: 'amd64', rootfs: { type: 'layers', diff_ids: diffIDs } }),
    ),
  );
  const manifest = await layout.write(
    Buffer.from(
      JSON.stringify({
        schemaVersion: 2,
        mediaType: MediaType.manifest,
        config: { mediaType: MediaType.config, ...config },
        layers,
      }),
    ),
  );
  await layout.put({
    mediaType: MediaType.manifest,
    ...manifest,
    annotations: { [Annotation.refName]: 'image' },
  });
  await layout.close();
  return { bytes, layers: layers.length };
}

async function startRegistry() {
  const config = join(dir, 'registry.yml');
  await writeFile(
    config,
    `version: 0.1
log: { accesslog: { disabled: true } }
storage: { filesystem: { rootdirectory: ${JSON.stringify(join(dir, 'registry'))} } }
http: { addr: "127.0.0.1:0" }
`,
  );
  const child = spawn('docker-registry', ['serve', config], { stdio: ['ignore', 'ignore', 'pipe'] });
  for await (const line of createInterface({ input: child.stderr })) {
    const host = /listening on (127\.0\.0\.1:\d+)/.exec(line)?.[1];
    if (host === undefined) continue;
    child.stderr.resume();
    return {
      host,
      stop: async () => {
        child.kill('SIGTERM');
        await once(child, 'close');
      },
    };
  }
  throw new Error('docker-registry did not start');
}
