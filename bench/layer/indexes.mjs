// What layer indexes cost and give, against node:zlib in the same run: `node bench/layer/indexes.mjs [LAYER [ROUNDS]]`.
// LAYER is a tar+gzip layer; without one, it is made of this machine's /usr/lib (300 MB compressed or more).
// Each round measures everything once, in turn; ratios are of one round, and the median of rounds is printed.
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { createReadStream, existsSync, statSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { cpus, tmpdir } from 'node:os';
import { join } from 'node:path';
import { createGunzip } from 'node:zlib';
import {
  decodeZtoc,
  decompressLayer,
  encodeZtoc,
  GzipScanner,
  indexLayer,
  readFile,
} from '../../packages/layer/dist/src/index.js';

const PORTION = 1 << 20;

function makeLayer() {
  const path = join(tmpdir(), 'layercache-bench-layer.tar.gz');
  if (existsSync(path)) return path;
  console.error(`making ${path}`);
  const script = `tar -c -C / usr/lib/$(uname -m)-linux-gnu usr/bin 2>/dev/null | gzip -6 > "$1"`;
  spawnSync('sh', ['-c', script, 'sh', path], { stdio: 'inherit' });
  return path;
}

const [path = makeLayer(), rounds = '5'] = process.argv.slice(2);
const size = statSync(path).size;
const file = await open(path);

/** A layer on disk that counts what is read of it. */
const bytes = {
  size,
  bytesRead: 0,
  async *read(start, end) {
    const buffer = Buffer.allocUnsafeSlow(end - start);
    await file.read(buffer, 0, buffer.length, start);
    this.bytesRead += buffer.length;
    yield buffer;
  },
};

const source = () => createReadStream(path, { highWaterMark: PORTION });
const median = (numbers) => [...numbers].sort((a, b) => a - b)[numbers.length >> 1];

async function timed(work) {
  const start = performance.now();
  await work();
  return (performance.now() - start) / 1000;
}

async function drain(stream, each = () => {}) {
  for await (const piece of stream) each(piece);
}

async function gunzipAndHash(chunkSize) {
  const hash = createHash('sha256');
  const gunzip = chunkSize === undefined ? createGunzip() : createGunzip({ chunkSize });
  await drain((chunkSize === undefined ? createReadStream(path) : source()).pipe(gunzip), (piece) =>
    hash.update(piece),
  );
}

async function scan() {
  const scanner = new GzipScanner(() => {});
  await drain(source(), (piece) => scanner.push(piece));
  scanner.finish();
}

const first = await indexLayer(source(), { form: 'tar+gzip' });
const encoded = encodeZtoc(first.ztoc);
const layer = { ztoc: decodeZtoc(encoded), bytes };
const { diffID, tarSize } = first;

const found = [];
for (let round = 0; round < Number(rounds); round++) {
  const gunzip = await timed(() => drain(source().pipe(createGunzip({ chunkSize: PORTION }))));
  const scanning = await timed(scan);
  const indexing = await timed(() => indexLayer(source(), { form: 'tar+gzip' }));
  const hashedDefault = await timed(() => gunzipAndHash(undefined));
  const hashed = await timed(() => gunzipAndHash(PORTION));
  const parallel = await timed(() => drain(decompressLayer(layer, { diffID })));
  found.push({ gunzip, scanning, indexing, hashedDefault, hashed, parallel });
}

const small = layer.ztoc.entries.filter(
  (entry) => entry.type === 'reg' && entry.size > 0 && entry.size < 100_000,
);
const reads = [];
for (let index = 0; index < 50; index++) {
  const entry = small[(index * 7919) % small.length];
  bytes.bytesRead = 0;
  reads.push({ seconds: await timed(() => drain(readFile(layer, entry))), bytes: bytes.bytesRead });
}
await file.close();

const speed = (key) => `${Math.round(tarSize / 1e6 / median(found.map((round) => round[key])))} MB/s`;
const ratio = (a, b) => median(found.map((round) => round[a] / round[b])).toFixed(2);
const report = {
  machine: `${cpus().length} × ${cpus()[0].model}, Node ${process.versions.node}`,
  layer: `${(size / 1e6).toFixed(0)} MB compressed, ${(tarSize / 1e6).toFixed(0)} MB of tar, ${layer.ztoc.entries.length} entries`,
  'index size': `${((encoded.length / tarSize) * 100).toFixed(2)} % of the tar`,
  'gunzip, 1 MiB chunks': speed('gunzip'),
  'scanner alone': `${speed('scanning')}, ${ratio('gunzip', 'scanning')} × gunzip`,
  'indexing, all of it': `${speed('indexing')}, ${ratio('gunzip', 'indexing')} × gunzip`,
  'gunzip and SHA-256, default chunks': speed('hashedDefault'),
  'gunzip and SHA-256, 1 MiB chunks': speed('hashed'),
  'parallel, verified': `${speed('parallel')}, ${ratio('hashedDefault', 'parallel')} × default chunks, ${ratio('hashed', 'parallel')} × 1 MiB chunks`,
  'one small file': `${(median(reads.map((read) => read.seconds)) * 1000).toFixed(1)} ms (slowest of 50: ${(Math.max(...reads.map((read) => read.seconds)) * 1000).toFixed(1)}), at most ${Math.max(...reads.map((read) => read.bytes))} bytes read`,
  'peak memory': `${Math.round(process.resourceUsage().maxRSS / 1024)} MiB`,
};
for (const [what, value] of Object.entries(report)) console.log(`${what.padEnd(36)} ${value}`);
