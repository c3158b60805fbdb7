import {
  digestAlgorithm,
  Digester,
  IntegrityError,
  LayercacheError,
  throwIfAborted,
  type Digest,
  type LayerForm,
} from '@layercache/oci';
import { batches, portions, type ByteSource } from './bytes.js';
import { DEFAULT_SPAN_SIZE, spanStart } from './deflate/checkpoint.js';
import { GzipInflation } from './deflate/gzip-inflation.js';
import { startScanning, type Scanned, type Scanning } from './deflate/scanning.js';
import { WindowTracker } from './deflate/window-tracker.js';
import type { LayerIndex } from './layer-index.js';
import { SpanDigester } from './span-digester.js';
import type { TarEntry } from './tar/entry.js';
import { TAR_LIMITS, type TarLimits } from './tar/limits.js';
import { TarReader } from './tar/tar-reader.js';
import { decompressZstd } from './zstd/decompress-zstd.js';

export interface IndexLayerOptions {
  readonly form: LayerForm;
  /** What the bytes must hash to; anything else is `DIGEST_MISMATCH`. */
  readonly digest?: Digest | undefined;
  /** What the tar must hash to; anything else is `DIFFID_MISMATCH`. */
  readonly diffID?: Digest | undefined;
  /** Bytes of output between checkpoints, at least. Default: 4 MiB. */
  readonly spanSize?: number;
  /** Threads to scan in, beside the one that hashes: 1 (the default) or 0. The result is the same. */
  readonly workers?: 0 | 1;
  readonly limits?: TarLimits;
  readonly signal?: AbortSignal | undefined;
}

/** Who made an index. Without a version, so that every version gives the same bytes. */
const BUILDER = 'layercache';

/** Bytes of a gzip layer that are handled at once; a layer of no more is not worth a thread. */
const BATCH = 1 << 20;
/** Batches that may be ahead in the scanning thread. */
const AHEAD = 4;

/** What is learned from the tar, whatever form it came in. */
class TarIndexing {
  readonly entries: TarEntry[] = [];
  readonly digester: Digester;
  readonly #reader: TarReader;

  constructor(options: IndexLayerOptions) {
    this.digester = new Digester(options.diffID === undefined ? 'sha256' : digestAlgorithm(options.diffID));
    this.#reader = new TarReader((entry) => this.entries.push(entry), options.limits ?? TAR_LIMITS);
  }

  push(piece: Uint8Array): void {
    this.digester.update(piece);
    this.#reader.push(piece);
  }

  /** Where the archive inside the tar ends. */
  finish(): number {
    this.#reader.finish();
    return this.#reader.end;
  }
}

/**
 * Reads a layer once, from its first byte to its last, and makes its index. Beside the index itself, memory is
 * constant: a few MiB, whatever the size of the layer and however far it expands.
 *
 * @throws LayercacheError `COMPRESSION_INVALID`, `ARCHIVE_INVALID`, `ABORTED`; `DIGEST_MISMATCH` and
 *   `DIFFID_MISMATCH` where something else was expected; errors of the source as they are
 */
export async function indexLayer(source: ByteSource, options: IndexLayerOptions): Promise<LayerIndex> {
  const spanSize = options.spanSize ?? DEFAULT_SPAN_SIZE;
  if (!Number.isSafeInteger(spanSize) || spanSize < 1) {
    throw new LayercacheError(
      'USAGE',
      `the span size ${spanSize} is not usable: give a number of bytes, 1 or more`,
    );
  }
  throwIfAborted(options.signal);
  const compressed = new Digester(options.digest === undefined ? 'sha256' : digestAlgorithm(options.digest));
  const tar = new TarIndexing(options);
  const ztoc =
    options.form === 'tar+gzip'
      ? await indexGzip(source, spanSize, compressed, tar, options)
      : await indexTar(source, spanSize, compressed, tar, options);
  const size = compressed.size;
  const index: LayerIndex = {
    digest: compressed.digest(),
    size,
    tarSize: tar.digester.size,
    diffID: tar.digester.digest(),
    ztoc,
  };
  expectDigest('DIGEST_MISMATCH', 'the layer', options.digest, index.digest);
  expectDigest('DIFFID_MISMATCH', 'the tar of the layer', options.diffID, index.diffID);
  return index;
}

function expectDigest(
  code: 'DIGEST_MISMATCH' | 'DIFFID_MISMATCH',
  what: string,
  expected: Digest | undefined,
  found: Digest,
): void {
  if (expected === undefined || expected === found) return;
  throw new IntegrityError(code, `${what} hashes to ${found}, not to ${expected}; fetch it again`, {
    expected,
    found,
  });
}

async function indexTar(
  source: ByteSource,
  spanSize: number,
  compressed: Digester,
  tar: TarIndexing,
  { form, signal }: IndexLayerOptions,
): Promise<LayerIndex['ztoc']> {
  const spans = new SpanDigester();
  let nextSpan = 0;
  for await (const piece of form === 'tar'
    ? portions(source, signal)
    : decompressZstd(hashed(source, compressed, signal), signal)) {
    throwIfAborted(signal);
    if (form === 'tar') compressed.update(piece);
    for (; nextSpan < tar.digester.size + piece.length; nextSpan += spanSize) spans.begin(nextSpan, nextSpan);
    spans.update(piece);
    tar.push(piece);
  }
  const uncompressedSize = tar.finish();
  return {
    builder: BUILDER,
    compression: 'uncompressed',
    compressedSize: tar.digester.size,
    uncompressedSize,
    spanSize,
    checkpoints: [],
    spanDigests: spans.finish(),
    entries: tar.entries,
  };
}

async function* hashed(
  source: ByteSource,
  digester: Digester,
  signal: AbortSignal | undefined,
): AsyncGenerator<Uint8Array> {
  for await (const portion of portions(source, signal)) {
    digester.update(portion);
    yield portion;
  }
}

/**
 * The scan goes ahead, inflation follows it: so each window is known to be wanted before its bytes go by, and
 * no output is ever kept for later.
 */
async function indexGzip(
  source: ByteSource,
  spanSize: number,
  compressed: Digester,
  tar: TarIndexing,
  { signal, workers = 1 }: IndexLayerOptions,
): Promise<LayerIndex['ztoc']> {
  const spans = new SpanDigester();
  const windows = new WindowTracker();
  const inflation = new GzipInflation((piece) => {
    windows.output(piece);
    tar.push(piece);
  });
  /** Bytes that have been scanned in part. */
  let held: Uint8Array[] = [];
  let inflated = 0;
  const follow = async ({ bytes, starts, input }: Scanned): Promise<void> => {
    throwIfAborted(signal);
    compressed.update(bytes);
    for (const start of starts) {
      spans.begin(spanStart(start), start.input);
      windows.announce(start);
    }
    held.push(bytes);
    const kept: Uint8Array[] = [];
    for (const part of held) {
      const ready = part.subarray(0, Math.max(0, input - inflated));
      if (ready.length < part.length) kept.push(part.subarray(ready.length));
      if (ready.length === 0) continue;
      inflated += ready.length;
      spans.update(ready);
      await inflation.write(ready);
    }
    held = kept;
  };

  let scanning: Scanning | undefined;
  const ahead: Promise<Scanned>[] = [];
  try {
    for await (const batch of batches(source, BATCH, signal)) {
      scanning ??= startScanning(spanSize, workers > 0 && batch.length === BATCH);
      const scanned = scanning.scan(batch);
      scanned.catch(() => undefined);
      ahead.push(scanned);
      const first = ahead.length < AHEAD ? undefined : ahead.shift();
      if (first !== undefined) await follow(await first);
    }
    scanning ??= startScanning(spanSize, false);
    for (const scanned of ahead) await follow(await scanned);
    await follow(await scanning.finish());
    await inflation.finish();
  } finally {
    scanning?.close();
    inflation.close();
  }
  const uncompressedSize = tar.finish();
  return {
    builder: BUILDER,
    compression: 'gzip',
    compressedSize: compressed.size,
    uncompressedSize,
    spanSize,
    checkpoints: windows.checkpoints,
    spanDigests: spans.finish(),
    entries: tar.entries,
  };
}
