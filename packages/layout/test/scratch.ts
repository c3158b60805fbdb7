import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Annotation, MediaType, digestOf, type Descriptor, type Digest } from '@layercache/oci';
import { OciLayout, type OpenOptions } from '../src/index.js';

/** A new folder that is gone when the test is over. */
export async function inScratch<T>(run: (dir: string) => Promise<T>): Promise<T> {
  const dir = mkdtempSync(join(tmpdir(), 'layercache-test-'));
  try {
    return await run(dir);
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
}

/** A new layout, closed and gone when the test is over. */
export async function inLayout(
  run: (layout: OciLayout, dir: string) => Promise<void>,
  options: OpenOptions = {},
): Promise<void> {
  await inScratch(async (dir) => {
    const layout = await OciLayout.open(dir, options);
    try {
      await run(layout, dir);
    } finally {
      await layout.close();
    }
  });
}

/** Number `n` of as many digests as one likes. */
export function digestNumber(n: number | string): Digest {
  return digestOf(`number ${n}`);
}

/** The descriptors of layer `n` in two forms. There are no bytes behind them. */
export function layerPair(n: number | string): { gzip: Descriptor; tar: Descriptor } {
  const diffID = digestNumber(`${n} tar`);
  const digest = digestNumber(`${n} gzip`);
  return {
    gzip: {
      mediaType: MediaType.layerGzip,
      digest,
      size: 1000,
      annotations: { [Annotation.diffID]: diffID },
    },
    tar: {
      mediaType: MediaType.layer,
      digest: diffID,
      size: 3000,
      annotations: { [Annotation.digest]: digest },
    },
  };
}

export function manifestNamed(name: string, n: number | string = name): Descriptor {
  return {
    mediaType: MediaType.manifest,
    digest: digestNumber(n),
    size: 400,
    annotations: { [Annotation.refName]: name },
  };
}

export function blobOf(bytes: Uint8Array, mediaType: string = MediaType.octetStream): Descriptor {
  return { mediaType, digest: digestOf(bytes), size: bytes.byteLength };
}

export async function collect(source: AsyncIterable<unknown>): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of source) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks);
}

/** The error that a promise fails with. */
export async function failure(promise: Promise<unknown>): Promise<Error & { code?: string }> {
  try {
    await promise;
  } catch (error) {
    if (error instanceof Error) return error;
    throw error;
  }
  throw new Error('did not fail');
}
