import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { lstat, mkdir, readFile, readdir, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { fileURLToPath } from 'node:url';
import { expect } from 'chai';
import { writeWholeFile } from '../../src/index.js';
import { Scratch, failure } from '../test-cache.js';

const MODULE = fileURLToPath(new URL('../../src/export/whole-file.js', import.meta.url));

describe('an output', () => {
  const scratch = new Scratch();
  let dir: string;
  const at = (name: string): string => join(dir, name);
  const write = (name: string, text = 'new'): Promise<void> =>
    writeWholeFile(at(name), Readable.from([Buffer.from(text)]));
  beforeEach(async () => {
    dir = await scratch.dir();
  });
  afterEach(() => scratch.clean());

  it('to a link writes where it leads, through several and to what is not there yet, and the link stays', async () => {
    await mkdir(at('sub'));
    await writeFile(at('sub/file'), 'old');
    await symlink('file', at('sub/inner'));
    await symlink('sub/inner', at('outer'));
    await symlink('sub/later', at('dangling'));
    for (const link of ['outer', 'dangling']) {
      await write(link);
      expect((await lstat(at(link))).isSymbolicLink()).to.equal(true);
    }
    expect(await readFile(at('sub/file'), 'utf8')).to.equal('new');
    expect(await readFile(at('sub/later'), 'utf8')).to.equal('new');
    expect((await readdir(at('sub'))).sort()).to.deep.equal(['file', 'inner', 'later']);
  });

  it('to links that lead to one another is refused', async () => {
    await symlink('b', at('a'));
    await symlink('a', at('b'));
    await failure('USAGE', () => write('a'));
  });

  it('to a pipe with a name is read at its other end', async () => {
    execFileSync('mkfifo', [at('fifo')]);
    const reader = spawn('cat', [at('fifo')], { stdio: ['ignore', 'pipe', 'ignore'] });
    let text = '';
    reader.stdout.on('data', (chunk: Buffer) => (text += chunk.toString()));
    await Promise.all([write('fifo', 'through'), once(reader, 'close')]);
    expect(text).to.equal('through');
    expect((await lstat(at('fifo'))).isFIFO()).to.equal(true);
  });

  it('to a device is written to it', async () => {
    await symlink('/dev/null', at('null'));
    await write('null');
    expect((await lstat('/dev/null')).isCharacterDevice()).to.equal(true);
  });

  it('to a link to what a process has open is written there', async () => {
    await symlink('/proc/self/fd/1', at('out'));
    await symlink('out', at('link'));
    const program = `import { Readable } from 'node:stream';
      import { writeWholeFile } from ${JSON.stringify(MODULE)};
      await writeWholeFile('link', Readable.from([Buffer.from('to the pipe')]));`;
    const child = spawn(process.execPath, ['--input-type=module', '-e', program], {
      cwd: dir,
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    let text = '';
    child.stdout.on('data', (chunk: Buffer) => (text += chunk.toString()));
    await once(child, 'close');
    expect(text).to.equal('to the pipe');
    for (const link of ['out', 'link']) expect((await lstat(at(link))).isSymbolicLink()).to.equal(true);
  });
});
