import { spawn, type ChildProcessByStdio } from 'node:child_process';
import type { Readable, Writable } from 'node:stream';
import { LayercacheError, abortedError, parseDocument, isLayercacheError } from '@layercache/oci';
import { z } from 'zod';
import type { Credentials } from './credentials.js';

/** Bytes of a helper's answer: a name, and a secret that has to fit into a header. */
const MAX_ANSWER = 128 * 1024;
/** Milliseconds that the output of a helper is read after its end, which its children may keep open. */
const LAST_WORDS = 500;

const answerSchema = z.looseObject({ Username: z.string(), Secret: z.string() });

export interface AskOptions {
  /** Milliseconds after which the helper and its children are killed. */
  readonly timeout: number;
  readonly signal: AbortSignal | undefined;
}

/**
 * Asks a credential helper for what it has under `key` (the protocol of docker-credential-helpers: the key on stdin of
 * `get`, JSON on stdout). No error quotes what the helper prints: it may be the secret.
 *
 * @throws LayercacheError `UNAUTHORIZED` when it fails or does not answer in time, `ABORTED`
 */
export async function askHelper(
  helper: string,
  key: string,
  options: AskOptions,
): Promise<Credentials | undefined> {
  if (!/^[A-Za-z0-9_.-]{1,100}$/.test(helper)) {
    throw new LayercacheError(
      'UNAUTHORIZED',
      `the Docker config names the credential helper ${JSON.stringify(helper.slice(0, 100))}, which is no program name`,
    );
  }
  const program = `docker-credential-${helper}`;
  const failure = (why: string): LayercacheError =>
    new LayercacheError(
      'UNAUTHORIZED',
      `the credential helper ${program} ${why} for ${key}: see what "echo ${key} | ${program} get" does`,
    );
  const { code, stdout } = await run(program, key, failure, options);
  if (code !== 0) {
    if (/credentials not found/i.test(stdout.toString('latin1'))) return undefined;
    throw failure(code === null ? 'was killed when asked' : `failed with exit code ${code}`);
  }
  try {
    const { Username, Secret } = parseDocument(answerSchema, stdout, 'the answer');
    if (Username === '<token>') return { kind: 'identity', token: Secret };
    return { kind: 'password', username: Username, password: Secret };
  } catch (error) {
    if (!isLayercacheError(error, 'DOCUMENT_INVALID')) throw error;
    // Not as the cause, either: it quotes the answer.
    throw failure('printed something that is not the JSON of credentials');
  }
}

type Helper = ChildProcessByStdio<Writable, Readable, null>;

function run(
  program: string,
  input: string,
  failure: (why: string) => LayercacheError,
  { timeout, signal }: AskOptions,
): Promise<{ readonly code: number | null; readonly stdout: Buffer }> {
  return new Promise((resolve, reject) => {
    if (signal?.aborted === true) {
      reject(abortedError(signal));
      return;
    }
    // A process group of its own, so that its children can be killed with it. Windows has no such groups.
    const child: Helper = spawn(program, ['get'], {
      stdio: ['pipe', 'pipe', 'ignore'],
      detached: process.platform !== 'win32',
    });
    const chunks: Buffer[] = [];
    let size = 0;
    let lastWords: NodeJS.Timeout | undefined;
    const settle = (outcome: () => void): void => {
      clearTimeout(timer);
      clearTimeout(lastWords);
      signal?.removeEventListener('abort', onAbort);
      forget(child);
      child.stdout.destroy();
      child.stdin.destroy();
      outcome();
    };
    const giveUp = (error: LayercacheError): void => {
      killGroup(child);
      settle(() => {
        reject(error);
      });
    };
    const onAbort = (): void => {
      giveUp(abortedError(signal));
    };
    const timer = setTimeout(() => {
      giveUp(failure(`did not answer in ${timeout / 1000} s and was killed when asked`));
    }, timeout);
    signal?.addEventListener('abort', onAbort);
    watch(child);

    child.stdout.on('data', (chunk: Buffer) => {
      size += chunk.length;
      if (size > MAX_ANSWER) giveUp(failure(`printed more than ${MAX_ANSWER} bytes`));
      else chunks.push(chunk);
    });
    child.on('error', (cause) => {
      settle(() => {
        reject(
          new LayercacheError(
            'UNAUTHORIZED',
            `the credential helper ${program} cannot be run: ${cause.message}`,
            { cause },
          ),
        );
      });
    });
    const finish = (code: number | null): void => {
      settle(() => {
        resolve({ code, stdout: Buffer.concat(chunks) });
      });
    };
    child.on('exit', (code) => {
      lastWords = setTimeout(finish, LAST_WORDS, code);
    });
    child.on('close', finish);
    // A helper that does not read its input is no failure of ours.
    child.stdin.on('error', () => undefined);
    child.stdin.end(input);
  });
}

/** Helpers that run now. They are killed when this process ends before them. */
const running = new Set<Helper>();

function watch(helper: Helper): void {
  if (running.size === 0) process.on('exit', killAll);
  running.add(helper);
}

function forget(helper: Helper): void {
  running.delete(helper);
  if (running.size === 0) process.off('exit', killAll);
}

function killAll(): void {
  for (const helper of running) killGroup(helper);
}

function killGroup({ pid }: Helper): void {
  if (pid === undefined) return;
  try {
    process.kill(process.platform === 'win32' ? pid : -pid, 'SIGKILL');
  } catch {
    // It has ended by itself.
  }
}
