// Measures what indexing an image costs: cold with one layer at a time, cold with four, together with adding the
// image from a registry, and warm.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { cpus, loadavg, tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { tenLayers } from '../images/machine-image.mjs';
import { serve } from '../images/program.mjs';

const PHASE = fileURLToPath(new URL('bench-phase.mjs', import.meta.url));

/** Runs all phases, and prints a table or, with `json`, a document. */
export async function bench(image, json) {
  const dir = await mkdtemp(join(tmpdir(), 'layercache-bench-'));
  const source = image === undefined ? await serveMachineImage() : { image, stop: async () => undefined };
  try {
    const load = loadavg()[0];
    const [first, second, third] = ['first', 'second', 'third'].map((name) => join(dir, name));
    for (const cache of [first, second]) await runPhase('add', cache, source.image);
    const phases = {
      'cold, one at a time': await runPhase('index', first, source.image, '1'),
      'cold, four at a time': await runPhase('index', second, source.image, '4'),
      'populate: add and index': await runPhase('populate', third, source.image),
      warm: await runPhase('index', second, source.image),
    };
    const machine = `${cpus().length} × ${cpus()[0].model}, Node ${process.versions.node}, load ${load.toFixed(1)}`;
    if (json) console.log(JSON.stringify({ machine, image: source.image, phases }, undefined, 2));
    else print(machine, source.image, phases);
  } finally {
    await source.stop();
    await rm(dir, { recursive: true, force: true });
  }
}

async function serveMachineImage() {
  const { host, stop } = await serve(await tenLayers());
  return { image: `${host}/bench:1`, stop };
}

async function runPhase(...args) {
  const child = spawn(process.execPath, [PHASE, ...args], { stdio: ['ignore', 'pipe', 'inherit'] });
  let text = '';
  child.stdout.setEncoding('utf8').on('data', (chunk) => (text += chunk));
  const [code] = await once(child, 'close');
  if (code !== 0) throw new Error(`the phase "${args[0]}" of the bench exited with ${code}`);
  return text === '' ? undefined : JSON.parse(text);
}

function print(machine, image, phases) {
  const { layers, files, tarBytes, indexBytes } = phases['cold, one at a time'];
  const mb = (bytes) => (bytes / 1e6).toFixed(1);
  console.log(machine);
  console.log(`${image}: ${layers} layers, ${files} files, ${mb(tarBytes)} MB of tar`);
  console.log(`indexes: ${mb(indexBytes)} MB, ${((indexBytes / tarBytes) * 100).toFixed(2)} % of the tar\n`);
  const columns = ['wall s', 'MiB/s of tar', 'peak MiB', 'hits', 'MB of blobs read'];
  const row = (name, cells) => console.log(name.padEnd(24) + cells.map((cell) => cell.padStart(17)).join(''));
  row('', columns);
  for (const [name, phase] of Object.entries(phases)) {
    row(name, [
      phase.seconds.toFixed(3),
      phase.hits === phase.layers ? '-' : (phase.tarBytes / 2 ** 20 / phase.seconds).toFixed(0),
      phase.peakMiB.toFixed(0),
      String(phase.hits),
      mb(phase.bytesRead),
    ]);
  }
}
