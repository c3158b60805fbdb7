import { readFile } from 'node:fs/promises';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { LayercacheError, parseDocument, isLayercacheError } from '@layercache/oci';
import { z } from 'zod';
import type { RequestOptions } from '../registry.js';
import { isDockerHub } from '../reference.js';
import { askHelper } from './credential-helper.js';

/** What a registry, or its token service, is shown. */
export type Credentials =
  | { readonly kind: 'password'; readonly username: string; readonly password: string }
  /** An OAuth2 refresh token, which `docker login` keeps in place of a password. */
  | { readonly kind: 'identity'; readonly token: string };

export interface CredentialStore {
  /** @param registry as in a reference: `docker.io`, `registry.example:5000` */
  get(registry: string, options?: RequestOptions): Promise<Credentials | undefined>;
}

export const noCredentials: CredentialStore = { get: () => Promise.resolve(undefined) };

/** Programs in Go write an empty map or string as null. */
const dockerConfigSchema = z.looseObject({
  auths: z
    .record(
      z.string(),
      z.looseObject({
        auth: z.string().nullish(),
        username: z.string().nullish(),
        password: z.string().nullish(),
        identitytoken: z.string().nullish(),
      }),
    )
    .nullish(),
  credHelpers: z.record(z.string(), z.string()).nullish(),
  credsStore: z.string().nullish(),
});
type DockerConfig = z.infer<typeof dockerConfigSchema>;

/** Under what `docker login` files Docker Hub. */
const DOCKER_HUB_KEY = 'https://index.docker.io/v1/';
/** Milliseconds a credential helper may take: some ask a keyring, which asks a person. */
const HELPER_TIMEOUT = 60_000;

export interface DockerCredentialsOptions {
  /** Milliseconds after which a credential helper is killed. Default 60,000. */
  readonly helperTimeout?: number;
}

/**
 * The credentials of `docker login`: `config.json` in `$DOCKER_CONFIG` or `~/.docker`, with its helpers.
 *
 * @throws LayercacheError `UNAUTHORIZED` when the file or a helper is there, but of no use
 */
export function dockerCredentials(
  file = join(process.env.DOCKER_CONFIG ?? join(homedir(), '.docker'), 'config.json'),
  options: DockerCredentialsOptions = {},
): CredentialStore {
  let config: Promise<DockerConfig> | undefined;
  return {
    get: async (registry, { signal } = {}) => {
      config ??= readConfig(file);
      const timeout = options.helperTimeout ?? HELPER_TIMEOUT;
      return find(await config, registry, (helper, key) => askHelper(helper, key, { timeout, signal }));
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

async function find(
  config: DockerConfig,
  registry: string,
  ask: (helper: string, key: string) => Promise<Credentials | undefined>,
): Promise<Credentials | undefined> {
  const host = registry.toLowerCase();
  const keys = isDockerHub(host)
    ? [DOCKER_HUB_KEY, 'docker.io', 'index.docker.io', 'registry-1.docker.io']
    : [...new Set([registry, host])];
  const helpers = new Map(Object.entries(config.credHelpers ?? {}).map(([key, name]) => [hostOf(key), name]));
  for (const key of keys) {
    const helper = helpers.get(hostOf(key)) ?? config.credsStore ?? '';
    if (helper === '') continue;
    const found = await ask(helper, key);
    if (found !== undefined) return found;
  }
  for (const [key, entry] of Object.entries(config.auths ?? {})) {
    if (!keys.some((wanted) => hostOf(wanted) === hostOf(key))) continue;
    const { auth, identitytoken: token } = entry;
    if (typeof token === 'string' && token !== '') return { kind: 'identity', token };
    const [username, password] =
      typeof auth === 'string' ? decodeAuth(auth) : [entry.username, entry.password];
    if (typeof username === 'string' && typeof password === 'string')
      return { kind: 'password', username, password };
  }
  return undefined;
}

/** `https://index.docker.io/v1/` and `index.docker.io` are the same place, in upper and lower case. */
function hostOf(key: string): string {
  return key
    .replace(/^https?:\/\//i, '')
    .replace(/\/.*$/, '')
    .toLowerCase();
}

function decodeAuth(auth: string): [string | undefined, string | undefined] {
  const text = Buffer.from(auth, 'base64').toString('utf8');
  const colon = text.indexOf(':');
  return colon === -1 ? [undefined, undefined] : [text.slice(0, colon), text.slice(colon + 1)];
}
