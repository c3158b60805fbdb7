import { spawn } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { LayercacheError, parseDocument, isLayercacheError } from '@layercache/oci';
import { z } from 'zod';

/** What a registry, or its token service, is shown. */
export type Credentials =
  | { readonly kind: 'password'; readonly username: string; readonly password: string }
  /** An OAuth2 refresh token, which `docker login` keeps in place of a password. */
  | { readonly kind: 'identity'; readonly token: string };

export interface CredentialStore {
  /** @param registry as in a reference: `docker.io`, `registry.example:5000` */
  get(registry: string): Promise<Credentials | undefined>;
}

export const noCredentials: CredentialStore = { get: () => Promise.resolve(undefined) };

const dockerConfigSchema = z.looseObject({
  auths: z
    .record(
      z.string(),
      z.looseObject({
        auth: z.string().optional(),
        username: z.string().optional(),
        password: z.string().optional(),
        identitytoken: z.string().optional(),
      }),
    )
    .optional(),
  credHelpers: z.record(z.string(), z.string()).optional(),
  credsStore: z.string().optional(),
});
type DockerConfig = z.infer<typeof dockerConfigSchema>;

const helperAnswerSchema = z.looseObject({ Username: z.string(), Secret: z.string() });

/** Under what `docker login` files Docker Hub. */
const DOCKER_HUB_KEY = 'https://index.docker.io/v1/';
/** Milliseconds a credential helper may take: some ask a keyring, which asks a person. */
const HELPER_TIMEOUT = 60_000;

/**
 * The credentials of `docker login`: `config.json` in `$DOCKER_CONFIG` or `~/.docker`, with its helpers.
 *
 * @throws LayercacheError `UNAUTHORIZED` when the file or a helper is there, but of no use
 */
export function dockerCredentials(
  file = join(process.env.DOCKER_CONFIG ?? join(homedir(), '.docker'), 'config.json'),
): CredentialStore {
  let config: Promise<DockerConfig> | undefined;
  return {
    get: async (registry) => {
      config ??= readConfig(file);
      return find(await config, registry);
    },
  };
}

async function readConfig(file: string): Promise<DockerConfig> {
  let bytes: Uint8Array;
  try {
    bytes = await readFile(file);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return {};
    throw new LayercacheError('UNAUTHORIZED', `the Docker config ${file} cannot be read: ${String(error)}`, {
      cause: error,
    });
  }
  try {
    return parseDocument(dockerConfigSchema, bytes, `the Docker config ${file}`);
  } catch (error) {
    if (!isLayercacheError(error)) throw error;
    // The message must not quote the file: it is full of secrets.
    throw new LayercacheError(
      'UNAUTHORIZED',
      `the Docker config ${file} is not valid: repair it, or remove it`,
    );
  }
}

async function find(config: DockerConfig, registry: string): Promise<Credentials | undefined> {
  const keys =
    registry === 'docker.io'
      ? [DOCKER_HUB_KEY, 'docker.io', 'index.docker.io', 'registry-1.docker.io']
      : [registry];
  for (const key of keys) {
    const helper = config.credHelpers?.[key] ?? config.credsStore;
    if (helper === undefined) continue;
    const found = await askHelper(helper, key);
    if (found !== undefined) return found;
  }
  for (const [key, entry] of Object.entries(config.auths ?? {})) {
    if (!keys.some((wanted) => hostOf(wanted) === hostOf(key))) continue;
    if (entry.identitytoken !== undefined && entry.identitytoken !== '') {
      return { kind: 'identity', token: entry.identitytoken };
    }
    const [username, password] =
      entry.auth === undefined ? [entry.username, entry.password] : decodeAuth(entry.auth);
    if (username !== undefined && password !== undefined) return { kind: 'password', username, password };
  }
  return undefined;
}

/** `https://index.docker.io/v1/` and `index.docker.io` are the same place. */
function hostOf(key: string): string {
  return key.replace(/^https?:\/\//, '').replace(/\/.*$/, '');
}

function decodeAuth(auth: string): [string | undefined, string | undefined] {
  const text = Buffer.from(auth, 'base64').toString('utf8');
  const colon = text.indexOf(':');
  return colon === -1 ? [undefined, undefined] : [text.slice(0, colon), text.slice(colon + 1)];
}

/** The protocol of docker-credential-helpers: the key on stdin of `get`, JSON on its stdout. */
async function askHelper(helper: string, key: string): Promise<Credentials | undefined> {
  if (!/^[A-Za-z0-9_.-]+$/.test(helper)) {
    throw new LayercacheError(
      'UNAUTHORIZED',
      `the Docker config names the credential helper ${JSON.stringify(helper)}, which is no program name`,
    );
  }
  const program = `docker-credential-${helper}`;
  const { code, stdout } = await run(program, key);
  if (code !== 0) {
    if (/credentials not found/i.test(stdout)) return undefined;
    throw new LayercacheError('UNAUTHORIZED', `${program} failed for ${key}: ${stdout.trim().slice(0, 200)}`);
  }
  const answer = parseDocument(helperAnswerSchema, Buffer.from(stdout), `the answer of ${program}`);
  if (answer.Username === '<token>') return { kind: 'identity', token: answer.Secret };
  return { kind: 'password', username: answer.Username, password: answer.Secret };
}

function run(program: string, input: string): Promise<{ code: number | null; stdout: string }> {
  return new Promise((resolve, reject) => {
    const child = spawn(program, ['get'], {
      stdio: ['pipe', 'pipe', 'ignore'],
      signal: AbortSignal.timeout(HELPER_TIMEOUT),
    });
    let stdout = '';
    child.stdout.setEncoding('utf8').on('data', (chunk: string) => (stdout += chunk));
    child.on('error', (cause) => {
      reject(
        new LayercacheError(
          'UNAUTHORIZED',
          `the credential helper ${program} cannot be run: ${cause.message}`,
          { cause },
        ),
      );
    });
    child.on('close', (code) => {
      resolve({ code, stdout });
    });
    // A helper that does not read its input is no failure of ours.
    child.stdin.on('error', () => undefined);
    child.stdin.end(input);
  });
}
