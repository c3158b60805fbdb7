import { chmod, mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { expect } from 'chai';
import { dockerCredentials, type Credentials } from '../../src/client/credentials.js';
import { failureOf } from './scripted.js';

const base64 = (text: string): string => Buffer.from(text).toString('base64');

describe('the credentials of docker login', () => {
  let directory = '';
  let path: string | undefined;

  beforeEach(async () => {
    directory = await mkdtemp(join(tmpdir(), 'layercache-docker-'));
    path = process.env.PATH;
  });
  afterEach(async () => {
    process.env.PATH = path;
    await rm(directory, { recursive: true });
  });

  async function stored(config: unknown): Promise<(registry: string) => Promise<Credentials | undefined>> {
    const file = join(directory, 'config.json');
    await writeFile(file, typeof config === 'string' ? config : JSON.stringify(config));
    const store = dockerCredentials(file);
    return (registry) => store.get(registry);
  }

  /** A credential helper: a program of that name in PATH, which is given the key on its standard input. */
  async function helper(name: string, script: string): Promise<void> {
    const programs = join(directory, 'bin');
    await mkdir(programs, { recursive: true });
    const file = join(programs, `docker-credential-${name}`);
    await writeFile(file, `#!/bin/sh\nread -r key\n${script}\n`);
    await chmod(file, 0o755);
    process.env.PATH = `${programs}${delimiter}${path}`;
  }

  it('are none without a file', async () => {
    expect(await dockerCredentials(join(directory, 'missing')).get('docker.io')).to.equal(undefined);
  });

  it('come from auths, by host', async () => {
    const get = await stored({
      auths: {
        'registry.example:5000': { auth: base64('alice:pa:ss') },
        'https://other.example/v2/': { username: 'bob', password: 'word' },
      },
    });
    expect(await get('registry.example:5000')).to.deep.equal({
      kind: 'password',
      username: 'alice',
      password: 'pa:ss',
    });
    expect(await get('other.example')).to.deep.equal({ kind: 'password', username: 'bob', password: 'word' });
    expect(await get('registry.example')).to.equal(undefined);
  });

  it('of Docker Hub are under its old address', async () => {
    const get = await stored({ auths: { 'https://index.docker.io/v1/': { auth: base64('hub:secret') } } });
    expect(await get('docker.io')).to.include({ username: 'hub', password: 'secret' });
  });

  it('may be an identity token', async () => {
    const get = await stored({ auths: { 'a.example': { auth: base64('x:'), identitytoken: 'refresh' } } });
    expect(await get('a.example')).to.deep.equal({ kind: 'identity', token: 'refresh' });
  });

  it('come from the helper of a registry, which is told the registry', async () => {
    await helper('vault', 'echo "{\\"Username\\":\\"$key\\",\\"Secret\\":\\"s3\\"}"');
    const get = await stored({ credHelpers: { 'a.example': 'vault' } });
    expect(await get('a.example')).to.include({ username: 'a.example', password: 's3' });
    expect(await get('b.example')).to.equal(undefined);
  });

  it('come from the store for all others, also as an identity token', async () => {
    await helper('keys', 'echo "{\\"Username\\":\\"<token>\\",\\"Secret\\":\\"refresh\\"}"');
    const get = await stored({ credsStore: 'keys' });
    expect(await get('b.example')).to.deep.equal({ kind: 'identity', token: 'refresh' });
  });

  it('are none when a helper has none', async () => {
    await helper('empty', 'echo "credentials not found in native keychain"; exit 1');
    const get = await stored({ credsStore: 'empty', auths: { 'a.example': {} } });
    expect(await get('a.example')).to.equal(undefined);
  });

  it('are an error when a helper fails, is missing, or has no proper name', async () => {
    await helper('broken', 'echo "the keyring is locked"; exit 1');
    const get = await stored({
      credHelpers: { 'a.example': 'broken', 'b.example': 'is-not-there', 'c.example': '../../bin/sh' },
    });
    const expected = {
      'a.example': 'keyring is locked',
      'b.example': 'cannot be run',
      'c.example': 'no program name',
    };
    for (const [registry, text] of Object.entries(expected)) {
      const failure = await failureOf(get(registry));
      expect(failure.code).to.equal('UNAUTHORIZED');
      expect(failure.message).to.include(text);
    }
  });

  it('are an error when the file is broken, and it is not quoted', async () => {
    for (const config of ['{"auths":{"a":{"auth":"c2VjcmV0"', { auths: { a: { auth: 7 } } }]) {
      const get = await stored(config);
      const failure = await failureOf(get('a'));
      expect(failure.code).to.equal('UNAUTHORIZED');
      expect(failure.message).to.include('config.json is not valid').and.not.to.include('c2VjcmV0');
    }
  });
});
