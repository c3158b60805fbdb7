import { expect } from 'chai';
import fc from 'fast-check';
import { spawnSync } from 'node:child_process';
import * as fs from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { digestHex, digestOf, MediaType, type Descriptor } from '@layercache/oci';
import { extractView } from '../../src/extract/extract-view.js';
import { MergedView } from '../../src/merge/merged-view.js';
import type { EntryOptions } from '../tar/tar-builder.js';
import { archive, layerOf } from '../merge/layer-stacks.js';
import { STACK } from '../merge/stack-generator.js';

type Stack = readonly (readonly EntryOptions[])[];

/** Only root can unpack owners. */
const isRoot = process.geteuid?.() === 0;
const hasUmoci = spawnSync('umoci', ['--version']).status === 0;
const isRequired =
  process.env.LAYERCACHE_REQUIRE_INTEROP === '1' &&
  (process.env.LAYERCACHE_INTEROP_TOOLS ?? '').split(',').includes('umoci');

async function writeLayout(folder: string, tars: readonly Buffer[]): Promise<void> {
  await fs.mkdir(join(folder, 'blobs/sha256'), { recursive: true });
  const put = async (mediaType: string, bytes: Buffer): Promise<Descriptor> => {
    const digest = digestOf(bytes);
    await fs.writeFile(join(folder, 'blobs/sha256', digestHex(digest)), bytes);
    return { mediaType, digest, size: bytes.length };
  };
  const json = (value: unknown): Buffer => Buffer.from(JSON.stringify(value));
  const layers: Descriptor[] = [];
  for (const tar of tars) layers.push(await put(MediaType.layerGzip, gzipSync(tar, { level: 1 })));
  const rootfs = { type: 'layers', diff_ids: tars.map((tar) => digestOf(tar)) };
  const config = await put(
    MediaType.config,
    json({ architecture: 'amd64', os: 'linux', rootfs, config: {} }),
  );
  const manifest = await put(
    MediaType.manifest,
    json({ schemaVersion: 2, mediaType: MediaType.manifest, config, layers }),
  );
  const annotations = { 'org.opencontainers.image.ref.name': 'test' };
  await fs.writeFile(join(folder, 'oci-layout'), '{"imageLayoutVersion":"1.0.0"}');
  await fs.writeFile(
    join(folder, 'index.json'),
    json({ schemaVersion: 2, manifests: [{ ...manifest, annotations }] }),
  );
}

interface Found {
  readonly kind: string;
  readonly mode: number;
  readonly owner: string;
  readonly mtime: number;
  readonly content: string;
  readonly nlink: number;
}

/** Everything below a folder of the real file system. */
async function walk(root: string, below = ''): Promise<Map<string, Found>> {
  const found = new Map<string, Found>();
  for (const name of await fs.readdir(join(root, below))) {
    const path = below === '' ? name : `${below}/${name}`;
    const stat = await fs.lstat(join(root, path));
    const kind = stat.isDirectory()
      ? 'dir'
      : stat.isSymbolicLink()
        ? 'symlink'
        : stat.isFIFO()
          ? 'fifo'
          : 'reg';
    const content =
      kind === 'reg'
        ? await fs.readFile(join(root, path), 'utf8')
        : kind === 'symlink'
          ? await fs.readlink(join(root, path))
          : '';
    found.set(path, {
      kind,
      mode: kind === 'symlink' ? 0 : stat.mode & 0o7777,
      owner: `${stat.uid}:${stat.gid}`,
      mtime: stat.mtimeMs / 1000,
      content,
      nlink: kind === 'dir' ? 0 : stat.nlink,
    });
    if (kind === 'dir') for (const [deeper, each] of await walk(root, path)) found.set(deeper, each);
  }
  return found;
}

/**
 * The order in which unpacking entry by entry gives what the specification says: folders before what is in them,
 * whiteouts before what their own layer puts there. Hardlinks are left out: umoci stops at one that is missing.
 */
function inOrder(stack: Stack): Stack {
  const depth = ({ name }: EntryOptions): number => name.replace(/\/$/, '').split('/').length;
  const isWhiteout = ({ name }: EntryOptions): number => (name.includes('.wh.') ? 0 : 1);
  return stack.map((layer) =>
    layer
      .filter((entry) => entry.type !== '1')
      .sort((a, b) => depth(a) - depth(b) || isWhiteout(a) - isWhiteout(b)),
  );
}

describe('the merged view against umoci', function () {
  this.timeout(60_000);

  it('is what umoci unpacks as root, in the view and on disk', async function () {
    if (!isRoot || (!hasUmoci && !isRequired)) this.skip();
    const folder = await fs.mkdtemp(join(tmpdir(), 'layercache-umoci-'));
    let run = 0;
    try {
      await fc.assert(
        fc.asyncProperty(STACK.map(inOrder), async (stack) => {
          run++;
          const tars = stack.map((entries) => archive(...entries));
          const layout = join(folder, `layout-${run}`);
          const bundle = join(folder, `bundle-${run}`);
          await writeLayout(layout, tars);
          const unpacked = spawnSync('umoci', ['unpack', '--image', `${layout}:test`, bundle], {
            encoding: 'utf8',
          });
          expect(unpacked.status, unpacked.stderr).to.equal(0);
          const wanted = await walk(join(bundle, 'rootfs'));

          const layers = tars.map(layerOf);
          const view = MergedView.of(layers);
          const out = join(folder, `out-${run}`);
          const { skipped } = await extractView(view, out, {
            openTar: async function* (diffID) {
              yield await Promise.resolve(tars[layers.findIndex((layer) => layer.diffID === diffID)]!);
            },
          });
          const extracted = await walk(out);
          for (const path of skipped) {
            expect(wanted.get(path)?.kind, path).to.equal('fifo');
            wanted.delete(path);
          }
          expect([...extracted.keys()].sort()).to.deep.equal([...wanted.keys()].sort());
          for (const [path, each] of wanted) expect(extracted.get(path), path).to.deep.equal(each);
        }),
        { numRuns: 300 },
      );
    } finally {
      await fs.rm(folder, { recursive: true, force: true });
    }
  });
});
