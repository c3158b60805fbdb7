import { spawn, type ChildProcessByStdio } from 'node:child_process';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Readable } from 'node:stream';
import { fileURLToPath } from 'node:url';
import { MemoryRegistry, createRegistryServer, type Registry } from '@layercache/registry';
import { pushImageOfFolders, type MadeImage } from '../src/demo/make-image.js';

const PROGRAM = fileURLToPath(new URL('../../bin/layercache.js', import.meta.url));

export interface Finished {
  readonly code: number | null;
  readonly stdout: Buffer;
  readonly stderr: string;
}

export type Running = ChildProcessByStdio<null, Readable, Readable>;

/** A cache, a registry and the real program, for one test. */
export class Bench {
  readonly dir: string;
  /** Of the program, beside what every one has. */
  readonly env: Record<string, string> = {};
  readonly host: string;
  readonly registry: Registry;
  readonly #stop: () => Promise<void>;

  private constructor(dir: string, host: string, registry: Registry, stop: () => Promise<void>) {
    this.dir = dir;
    this.host = host;
    this.registry = registry;
    this.#stop = stop;
  }

  static async open(registry: Registry = new MemoryRegistry()): Promise<Bench> {
    const dir = await mkdtemp(join(tmpdir(), 'layercache-cli-'));
    const server = createRegistryServer(registry);
    await server.listen({ host: '127.0.0.1', port: 0 });
    return new Bench(dir, new URL(server.url).host, registry, () => server.close());
  }

  get cache(): string {
    return join(this.dir, 'cache');
  }

  start(...args: string[]): Running {
    return spawn(process.execPath, [PROGRAM, '--cache', this.cache, ...args], {
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { PATH: process.env.PATH, HOME: this.dir, NODE_OPTIONS: process.env.NODE_OPTIONS, ...this.env },
    });
  }

  run(...args: string[]): Promise<Finished> {
    return finished(this.start(...args));
  }

  /** An image of `demo/app:1` in the registry, made of files of known content. */
  async pushImage(bytesPerFolder = 10_000): Promise<MadeImage> {
    const root = join(this.dir, 'files');
    for (const name of ['one', 'two']) {
      await mkdir(join(root, name), { recursive: true });
      await writeFile(join(root, name, 'data'), Buffer.alloc(bytesPerFolder, name));
    }
    return pushImageOfFolders(root, this.registry, 'demo/app', '1');
  }

  async close(): Promise<void> {
    await this.#stop();
    await rm(this.dir, { recursive: true, force: true });
  }
}

export async function finished(child: Running): Promise<Finished> {
  const stdout: Buffer[] = [];
  let stderr = '';
  child.stdout.on('data', (chunk: Buffer) => stdout.push(chunk));
  child.stderr.setEncoding('utf8').on('data', (chunk: string) => (stderr += chunk));
  const code = await new Promise<number | null>((resolve) => child.once('close', resolve));
  return { code, stdout: Buffer.concat(stdout), stderr };
}

/** The first line a running program prints. */
export async function firstLine(child: Running): Promise<string> {
  let text = '';
  for await (const chunk of child.stdout.iterator({ destroyOnReturn: false })) {
    text += String(chunk);
    if (text.includes('\n')) break;
  }
  return text.split('\n')[0] ?? '';
}
