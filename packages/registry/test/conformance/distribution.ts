import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { accessSync, constants } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { homedir, tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { createInterface } from 'node:readline';

/** A registry that is not ours, running for a test. */
export interface RunningRegistry {
  /** `127.0.0.1:5000` */
  readonly host: string;
  close(): Promise<void>;
}

/** Where a program is, or undefined where it is not installed. */
export function findProgram(name: string): string | undefined {
  const directories = [...(process.env.PATH ?? '').split(delimiter), join(homedir(), 'go', 'bin')];
  for (const directory of directories) {
    const path = join(directory, name);
    try {
      accessSync(path, constants.X_OK);
      return path;
    } catch {
      continue;
    }
  }
  return undefined;
}

/** Starts distribution's registry (2.8 or 3) on a free port, with its data in a temporary folder. */
export async function startDistribution(program: string): Promise<RunningRegistry> {
  const directory = await mkdtemp(join(tmpdir(), 'layercache-distribution-'));
  const config = join(directory, 'config.yml');
  await writeFile(
    config,
    [
      'version: 0.1',
      'log: { level: info, formatter: json }',
      `storage: { filesystem: { rootdirectory: ${JSON.stringify(join(directory, 'data'))} }, delete: { enabled: true } }`,
      'http: { addr: "127.0.0.1:0" }',
    ].join('\n'),
  );
  const child = spawn(program, ['serve', config], {
    stdio: ['ignore', 'ignore', 'pipe'],
    env: { PATH: process.env.PATH, OTEL_TRACES_EXPORTER: 'none' },
  });
  const close = async (): Promise<void> => {
    if (child.exitCode === null && child.signalCode === null) {
      const exited = once(child, 'exit');
      child.kill('SIGKILL');
      await exited;
    }
    await rm(directory, { recursive: true });
  };
  try {
    return { host: await listeningAddress(child), close };
  } catch (error) {
    await close();
    throw error;
  }
}

/** It says where it listens in its log, which has to be read on: a full pipe would stop it. */
async function listeningAddress(child: ChildProcess): Promise<string> {
  if (child.stderr === null) throw new Error('the registry has no log');
  const lines = createInterface({ input: child.stderr });
  return new Promise((resolve, reject) => {
    const seen: string[] = [];
    lines.on('line', (line) => {
      const address = /listening on (127\.0\.0\.1:\d+)/.exec(line)?.[1];
      if (address === undefined) seen.push(line);
      else resolve(address);
    });
    lines.once('close', () => {
      reject(new Error(`the registry did not start: ${seen.slice(-3).join(' ')}`));
    });
  });
}
