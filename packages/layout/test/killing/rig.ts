import { spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { isDigest, parseImageIndex, type Digest } from '@layercache/oci';
import { OciLayout } from '../../src/index.js';

const workerPath = fileURLToPath(new URL('worker.js', import.meta.url));

export interface Told {
  /** Puts that were resolved. */
  readonly put: Set<Digest>;
  /** Removals that were begun. */
  readonly removed: Set<Digest>;
}

/** Runs a worker to its end, or kills it at some moment after its first put. */
export async function runWorker(
  dir: string,
  prefix: string,
  options: { readonly count?: number; readonly withBlobs?: boolean; readonly killAfter?: number },
): Promise<Told> {
  const { count = Infinity, withBlobs = false, killAfter } = options;
  const child = spawn(
    process.execPath,
    [workerPath, dir, prefix, String(count), withBlobs ? 'with blobs' : ''],
    {
      stdio: ['ignore', 'pipe', 'pipe'],
    },
  );
  let out = '';
  let errors = '';
  let timer: NodeJS.Timeout | undefined;
  child.stdout.on('data', (chunk: Buffer) => {
    out += chunk.toString();
    if (killAfter !== undefined) timer ??= setTimeout(() => child.kill('SIGKILL'), killAfter);
  });
  child.stderr.on('data', (chunk: Buffer) => (errors += chunk.toString()));
  await new Promise((resolve) => child.once('close', resolve));
  clearTimeout(timer);
  if (child.exitCode !== 0 && child.signalCode !== 'SIGKILL') throw new Error(`worker failed: ${errors}`);
  const lines = out.split('\n').slice(0, -1);
  return {
    put: new Set(lines.filter(isDigest)),
    removed: new Set(lines.filter((line) => line.startsWith('-')).map((line) => line.slice(1) as Digest)),
  };
}

/** What must hold after any death. Says what does not. */
export async function findBroken(dir: string, told: readonly Told[]): Promise<string[]> {
  const broken: string[] = [];
  const removed = new Set(told.flatMap((one) => [...one.removed]));
  parseImageIndex(readFileSync(join(dir, 'index.json')));
  const layout = await OciLayout.open(dir, { lockTimeout: 5000 });
  for (const digest of new Set(told.flatMap((one) => [...one.put]))) {
    if (removed.has(digest)) continue;
    if (layout.lookup(digest).length === 0) broken.push(`put ${digest} is lost`);
    else if ((await layout.readBytes(digest).catch(() => undefined)) === undefined)
      broken.push(`blob ${digest} is lost`);
  }
  for (const { descriptor } of layout.entries()) {
    if (!(await layout.has(descriptor.digest, descriptor.size)))
      broken.push(`entry ${descriptor.digest} has no blob`);
  }
  await layout.close();
  return broken;
}
