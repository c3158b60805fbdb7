// Starts the command line, and what it needs, as processes of their own.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

const PROGRAM = fileURLToPath(new URL('../../packages/cli/bin/layercache.js', import.meta.url));
const BUNDLE = fileURLToPath(new URL('../../scripts/bundle-cli.mjs', import.meta.url));
const PRELOAD = new URL('report-peak.mjs', import.meta.url).href;

/** Runs a program to its end: seconds, and the peak of its resident memory in MiB where it reports one. */
export async function timed(program, args, options = {}) {
  const started = performance.now();
  const child = spawn(program, args, { stdio: ['ignore', options.stdout ?? 'ignore', 'pipe'] });
  let stderr = '';
  child.stderr.setEncoding('utf8').on('data', (text) => (stderr += text));
  const [code] = await once(child, 'close');
  if (code !== 0) throw new Error(`${program} ${args.join(' ')} exited with ${code}: ${stderr}`);
  const peak = /peak-rss-kib (\d+)/.exec(stderr);
  return {
    seconds: (performance.now() - started) / 1000,
    peakMiB: peak ? Number(peak[1]) / 1024 : undefined,
  };
}

export const layercache = (...args) =>
  timed(process.execPath, [`--import=${PRELOAD}`, PROGRAM, '--quiet', ...args]);

/** Makes the command line the one file that npm packs, or, with `--remove`, what was compiled again. */
export const bundled = (...args) => timed(process.execPath, [BUNDLE, ...args]);

/** Serves a cache until stopped. */
export async function serve(cache) {
  const child = spawn(process.execPath, [PROGRAM, '--cache', cache, 'serve', '--listen', '127.0.0.1:0'], {
    stdio: ['ignore', 'pipe', 'ignore'],
  });
  const [url] = await once(createInterface({ input: child.stdout }), 'line');
  return {
    host: new URL(url).host,
    stop: async () => {
      child.kill('SIGTERM');
      await once(child, 'close');
    },
  };
}

export function median(values) {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)];
}
