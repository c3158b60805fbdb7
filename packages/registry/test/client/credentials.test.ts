import { existsSync } from 'node:fs';
import { chmod, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { inspect } from 'node:util';
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

  it('are found beside what a program in Go left empty', async () => {
    await helper('vault', 'echo "{\\"Username\\":\\"$key\\",\\"Secret\\":\\"s3\\"}"');
    const get = await stored({ auths: null, credHelpers: { 'b.example': '' }, credsStore: 'vault' });
    expect(await get('a.example')).to.include({ password: 's3' });
    expect(await get('b.example')).to.equal(undefined);
    const file = await stored({
      auths: { 'a.example': { auth: null, username: 'alice', password: 'word', identitytoken: null } },
      credHelpers: null,
      credsStore: null,
    });
    expect(await file('a.example')).to.deep.equal({ kind: 'password', username: 'alice', password: 'word' });
  });

  it('are an error when a helper fails, is missing, or has no proper name', async () => {
    await helper('broken', 'echo "the keyring is locked"; exit 1');
    const get = await stored({
      credHelpers: { 'a.example': 'broken', 'b.example': 'is-not-there', 'c.example': '../../bin/sh' },
    });
    const expected = {
      'a.example': 'failed with exit code 1',
      'b.example': 'cannot be run',
      'c.example': 'no program name',
    };
    for (const [registry, text] of Object.entries(expected)) {
      const failure = await failureOf(get(registry));
      expect(failure.code).to.equal('UNAUTHORIZED');
      expect(failure.message).to.include(text);
    }
  });

  it('are found whatever the case of the host, and for each name of Docker Hub', async () => {
    const get = await stored({
      auths: {
        'Registry.Example:5000': { auth: base64('alice:word') },
        'https://index.docker.io/v1/': { auth: base64('hub:secret') },
      },
    });
    expect(await get('rEGISTRY.example:5000')).to.include({ username: 'alice' });
    for (const hub of ['docker.io', 'Docker.IO', 'index.docker.io', 'registry-1.docker.io']) {
      expect(await get(hub), hub).to.include({ username: 'hub' });
    }
    for (const other of [
      'registry.example',
      'registry.example:443',
      'evil-registry.example:5000',
      'docker.io.evil.example',
    ]) {
      expect(await get(other), other).to.equal(undefined);
    }
  });

  it('are never quoted, however a helper gets its answer wrong', async () => {
    const answers = {
      text: 'echo hunter2-the-secret',
      failing: 'echo hunter2-the-secret; exit 3',
      torn: `printf '{"Username":"alice","Secret":"hunter2-the-secret'`,
      fields: `echo '{"Username":"hunter2-the-secret","Secret":7}'`,
      key: `echo '{"hunter2-the-secret":"alice"}'`,
      nothing: ':',
    };
    for (const [name, script] of Object.entries(answers)) {
      await helper(name, script);
      const failure = await failureOf((await stored({ credsStore: name }))('a.example'));
      expect(failure.code, name).to.equal('UNAUTHORIZED');
      expect(failure.message, name).to.include(`docker-credential-${name}`).and.to.include('a.example');
      expect(inspect(failure), name).not.to.include('hunter2');
    }
  });

  /** Whether the process still runs: not as a zombie, which waits for its parent. */
  async function runs(pid: number): Promise<boolean> {
    try {
      return !/^State:\s+[ZX]/m.test(await readFile(`/proc/${pid}/status`, 'utf8'));
    } catch {
      return false;
    }
  }

  async function endOf(pidFile: string): Promise<void> {
    const pid = Number(await readFile(pidFile, 'utf8'));
    expect(pid).to.be.above(1);
    while (await runs(pid)) await sleep(10);
  }

  it('are not waited for when a helper hangs: it is killed, and its children with it', async function () {
    if (process.platform !== 'linux') this.skip();
    const pids = join(directory, 'pid');
    await helper('slow', `sleep 1000 & echo $! > ${pids}; wait`);
    const file = join(directory, 'config.json');
    await writeFile(file, JSON.stringify({ credsStore: 'slow' }));
    const failure = await failureOf(dockerCredentials(file, { helperTimeout: 1500 }).get('a.example'));
    expect(failure.message).to.include('did not answer in 1.5 s');
    await endOf(pids);
  });

  it('are not waited for when the caller gives up: the helper is killed', async function () {
    if (process.platform !== 'linux') this.skip();
    const pids = join(directory, 'pid');
    await helper('slow', `sleep 1000 & echo $! > ${pids}.new; mv ${pids}.new ${pids}; wait`);
    const file = join(directory, 'config.json');
    await writeFile(file, JSON.stringify({ credsStore: 'slow' }));
    const abort = new AbortController();
    const asked = failureOf(dockerCredentials(file).get('a.example', { signal: abort.signal }));
    while (!existsSync(pids)) await sleep(10);
    abort.abort();
    expect((await asked).code).to.equal('ABORTED');
    await endOf(pids);
  });

  it('of a helper that prints without end are an error, and it is killed', async function () {
    if (process.platform !== 'linux') this.skip();
    const pids = join(directory, 'pid');
    await helper('endless', `yes & echo $! > ${pids}; wait`);
    const failure = await failureOf((await stored({ credsStore: 'endless' }))('a.example'));
    expect(failure.message).to.include('printed more than 131072 bytes');
    await endOf(pids);
  });

  it('are asked for by many at a time without a warning', async () => {
    await helper('many', 'echo "{\\"Username\\":\\"$key\\",\\"Secret\\":\\"s\\"}"');
    const get = await stored({ credsStore: 'many' });
    const warnings: Error[] = [];
    const onWarning = (warning: Error): number => warnings.push(warning);
    process.on('warning', onWarning);
    const before = process.listenerCount('exit');
    try {
      const names = Array.from({ length: 12 }, (_, at) => `r${at}.example`);
      const found = await Promise.all(names.map((name) => get(name)));
      expect(found.map((each) => each?.kind === 'password' && each.username)).to.deep.equal(names);
      expect(process.listenerCount('exit')).to.equal(before);
      // Warnings come in a later turn of the event loop.
      await sleep(1);
      expect(warnings).to.deep.equal([]);
    } finally {
      process.off('warning', onWarning);
    }
  });

  it('are taken from a helper that leaves a process behind', async () => {
    await helper('agent', `sleep 5 & echo '{"Username":"alice","Secret":"s"}'`);
    const get = await stored({ credsStore: 'agent' });
    expect(await get('a.example')).to.include({ username: 'alice' });
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
