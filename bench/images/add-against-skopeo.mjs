// Adding an image of 400 MB from a local docker-registry, against `skopeo copy` into an OCI layout, in turn.
//   node bench/images/add-against-skopeo.mjs [pairs]
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { FOLDERS, makeMachineImage } from './machine-image.mjs';
import { bundled, layercache, median, timed } from './program.mjs';

const WANTED = 400_000_000;
const pairs = Number(process.argv[2] ?? 5);
const dir = await mkdtemp(join(tmpdir(), 'layercache-add-'));

try {
  // As it is installed from npm.
  await bundled();
  const { bytes, layers } = await makeMachineImage(join(dir, 'source'), 'image', FOLDERS, { wanted: WANTED });
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
  await bundled('--remove');
  await rm(dir, { recursive: true, force: true });
}

function run(program, args) {
  const { status, stderr } = spawnSync(program, args, { encoding: 'utf8' });
  if (status !== 0) throw new Error(`${program} failed: ${stderr}`);
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
