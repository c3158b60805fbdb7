import { expect } from 'chai';
import { spawnSync } from 'node:child_process';
import * as fs from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { gzipSync } from 'node:zlib';
import { indexLayer } from '../../src/index-layer.js';
import { encodeZtoc } from '../../src/ztoc/ztoc-codec.js';
import { compressible } from '../deflate/gzip-streams.js';
import { someTar } from '../layers.js';
import { gnuLong, tar } from '../tar/tar-builder.js';

/** Compiled tests are in `dist/test`; the program is a source. */
const PROGRAM = fileURLToPath(new URL('../../../test/interop/soci', import.meta.url));

const hasGo = spawnSync('go', ['version']).status === 0;

/** Every kind of entry that SOCI takes. */
const odd = tar(
  { name: './', mode: 0o755 },
  { name: 'dir/', mode: 0o1777, uid: 7, gid: 8, uname: 'me', gname: 'us', mtime: 0 },
  { name: 'dir/file', data: compressible(300_000), mtime: -5 },
  { name: 'x', pax: { path: `long/${'n'.repeat(300)}`, mtime: '1350244992.02396' }, data: 'pax' },
  {
    name: 'attributes',
    pax: { 'SCHILY.xattr.user.b': Buffer.from([0, 255, 10, 200]), 'SCHILY.xattr.user.a': 'a' },
  },
  gnuLong('L', `gnu/${'g'.repeat(200)}`),
  { name: 'x', magic: 'ustar  \0', data: 'gnu' },
  { name: 'link', type: '2', linkname: 'dir/file' },
  { name: 'hard', type: '1', linkname: 'dir/file' },
  { name: 'null', type: '3', devmajor: 1, devminor: 3 },
  { name: 'disk', type: '4', devmajor: 8 },
  { name: 'pipe', type: '6' },
  { name: 'big-uid', uid: 3_000_000_000, mode: 0o6755 },
  { name: 'last', data: compressible(200_000, 3) },
);

describe('our layer indexes and those of SOCI', function () {
  this.timeout(300_000);
  let folder = '';

  before(async function () {
    folder = await fs.mkdtemp(join(tmpdir(), 'layercache-soci-'));
    if (!hasGo) this.skip();
    const built = spawnSync('go', ['build', '-o', join(folder, 'soci-ztoc'), '.'], {
      cwd: PROGRAM,
      encoding: 'utf8',
    });
    if (built.status === 0) return;
    if (process.env.LAYERCACHE_REQUIRE_INTEROP === '1') throw new Error(built.stderr);
    this.skip();
  });
  after(async () => {
    await fs.rm(folder, { recursive: true, force: true });
  });

  async function bothIndexes(
    layer: Buffer,
    form: 'tar' | 'tar+gzip',
    spanSize: number,
  ): Promise<[Buffer, Buffer]> {
    const path = join(folder, 'layer');
    const output = join(folder, 'ztoc');
    await fs.writeFile(path, layer);
    const algorithm = form === 'tar' ? 'uncompressed' : 'gzip';
    const run = spawnSync(join(folder, 'soci-ztoc'), [path, String(spanSize), algorithm, output], {
      encoding: 'utf8',
      env: { ...process.env, TZ: 'UTC' },
    });
    expect(run.status, run.stderr).to.equal(0);
    const { ztoc } = await indexLayer([layer], { form, spanSize, workers: 0 });
    return [Buffer.from(encodeZtoc(ztoc)), await fs.readFile(output)];
  }

  for (const [name, bytes] of Object.entries({ 'plain files': someTar(), 'odd entries': odd })) {
    for (const spanSize of [20_000, 100_000, 4 << 20]) {
      it(`are the same bytes: ${name}, spans of ${spanSize}`, async () => {
        for (const layer of [
          gzipSync(bytes),
          gzipSync(bytes, { level: 1 }),
          gzipSync(bytes, { memLevel: 1 }),
        ]) {
          const [ours, theirs] = await bothIndexes(layer, 'tar+gzip', spanSize);
          expect(ours.equals(theirs)).to.equal(true);
        }
        const [ours, theirs] = await bothIndexes(bytes, 'tar', spanSize);
        expect(ours.equals(theirs)).to.equal(true);
      });
    }
  }
});
