import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { accessSync, constants } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { homedir, tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { createInterface } from 'node:readline';

/** Where a program is, or undefined where it is not installed. */
export function findTool(name: string): string | undefined {
  const folders = [...(process.env.PATH ?? '').split(delimiter), join(homedir(), 'go', 'bin')];
  return folders.map((folder) => join(folder, name)).find(isExecutable);
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

/**
 * Declares a test that needs programs. Where one is missing the test is pending, unless this machine is said to
 * have it: then `LAYERCACHE_REQUIRE_INTEROP=1` and its name in `LAYERCACHE_INTEROP_TOOLS` (comma-separated) make
 * it fail.
 */
export function itWith(programs: readonly string[], title: string, test: () => Promise<void>): Mocha.Test {
  const missing = programs.filter((program) => findTool(program) === undefined);
  if (missing.length === 0) return it(title, test);
  const required = missing.filter(isRequired);
  if (required.length === 0) return it(`${title} (needs ${missing.join(', ')})`);
  return it(title, () => {
    throw new Error(`${required.join(', ')} is not installed, and this machine is required to have it`);
  });
}

function isRequired(program: string): boolean {
  return (
    process.env.LAYERCACHE_REQUIRE_INTEROP === '1' &&
    (process.env.LAYERCACHE_INTEROP_TOOLS ?? '').split(',').includes(program)
  );
}

export interface RunOptions {
  readonly env?: Readonly<Record<string, string>>;
  /** Milliseconds after which the program is ended. Default: 60,000. */
  readonly timeout?: number;
}

/** Runs a program to its end and resolves with what it wrote to stdout. Rejects when it does not exit with 0. */
export async function runTool(
  program: string,
  args: readonly string[],
  options: RunOptions = {},
): Promise<string> {
  const child = spawn(findTool(program) ?? program, args, {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, ...options.env },
    timeout: options.timeout ?? 60_000,
    killSignal: 'SIGKILL',
  });
  const written: Record<'stdout' | 'stderr', string> = { stdout: '', stderr: '' };
  for (const stream of ['stdout', 'stderr'] as const) {
    child[stream].setEncoding('utf8').on('data', (text: string) => (written[stream] += text));
  }
  const [code, signal] = (await once(child, 'close')) as [number | null, string | null];
  if (code === 0) return written.stdout;
  throw new Error(
    `${program} ${args.join(' ')} ended with ${code ?? signal}: ${written.stderr.slice(-2000) || written.stdout.slice(-2000)}`,
  );
}

/** Registries that are not ours, and the programs that they are. */
export const REAL_REGISTRIES: readonly { readonly name: string; readonly program: string }[] = [
  { name: 'distribution 2.8', program: 'docker-registry' },
  { name: 'distribution 3', program: 'registry' },
];

export interface RunningRegistry {
  /** `127.0.0.1:5000` */
  readonly host: string;
  stop(): Promise<void>;
}

/** Starts distribution's registry on a free port of this machine, with its data in a temporary folder. */
export async function startRegistry(program: string): Promise<RunningRegistry> {
  const dir = await mkdtemp(join(tmpdir(), 'layercache-registry-'));
  const config = join(dir, 'config.yml');
  await writeFile(
    config,
    `version: 0.1
log: { level: info, formatter: json, accesslog: { disabled: true } }
storage: { filesystem: { rootdirectory: ${JSON.stringify(join(dir, 'data'))} }, delete: { enabled: true } }
http: { addr: "127.0.0.1:0" }
`,
  );
  const child = spawn(findTool(program) ?? program, ['serve', config], {
    stdio: ['ignore', 'ignore', 'pipe'],
    env: { PATH: process.env.PATH, OTEL_TRACES_EXPORTER: 'none' },
  });
  const stop = async (): Promise<void> => {
    if (child.exitCode === null && child.signalCode === null) {
      const exited = once(child, 'exit');
      child.kill('SIGKILL');
      await exited;
    }
    await rm(dir, { recursive: true });
  };
  try {
    return { host: await listeningAddress(child), stop };
  } catch (error) {
    await stop();
    throw error;
  }
}

/** It says where it listens in its log, which has to be read on: a full pipe would stop it. */
function listeningAddress(child: ChildProcess): Promise<string> {
  return new Promise((resolve, reject) => {
    const seen: string[] = [];
    child.once('error', reject);
    if (child.stderr === null) throw new TypeError('the log of the registry is a pipe');
    const lines = createInterface({ input: child.stderr });
    lines.on('line', (line) => {
      const address = /listening on (127\.0\.0\.1:\d+)/.exec(line)?.[1];
      if (address !== undefined) resolve(address);
      else if (seen.length < 20) seen.push(line);
    });
    lines.once('close', () => {
      reject(new Error(`the registry did not start: ${seen.join(' ')}`));
    });
  });
}
