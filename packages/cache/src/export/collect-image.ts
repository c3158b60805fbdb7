import type { Readable } from 'node:stream';
import type { OciLayout } from '@layercache/layout';
import type { LayercacheError } from '@layercache/oci';
import {
  MAX_MANIFEST_SIZE,
  claimedDiffID,
  isLayercacheError,
  isNondistributable,
  type Descriptor,
  type Digest,
  type ImageManifest,
} from '@layercache/oci';
import { parseManifest } from '../images/manifest.js';
import type { Layer } from '../layer.js';
import type { BlobSupply } from '../pairing.js';
import type { ExportedImage } from './export-target.js';

export interface CollectContext {
  readonly layout: OciLayout;
  readonly supply: BlobSupply;
  readonly layerOf: (digest: Digest) => Layer;
  /** The manifest that goes beside that of an image, as one whose `subject` it is. */
  readonly referrerOf?: ((image: Descriptor) => Promise<Descriptor>) | undefined;
}

/**
 * Everything an image in the cache refers to, all of it here.
 *
 * @throws LayercacheError `NOT_FOUND` when a part is not in the cache; `UNSUPPORTED` when nothing of it has a referrer
 */
export async function collectImage(
  { layout, supply, layerOf, referrerOf }: CollectContext,
  descriptor: Descriptor,
  name: string | undefined,
  signal: AbortSignal | undefined,
): Promise<ExportedImage> {
  const parts = new Map<Digest, Descriptor>();
  const manifests: ImageManifest[] = [];
  const referrers: Descriptor[] = [];
  let refused: LayercacheError | undefined;

  const collect = async (manifest: Descriptor, into: ImageManifest[]): Promise<void> => {
    // A nested index may list a manifest as often as it likes.
    if (parts.has(manifest.digest)) return;
    await supply(manifest, signal);
    const bytes = await layout.readBytes(manifest.digest, { maxSize: MAX_MANIFEST_SIZE, signal });
    const parsed = parseManifest(manifest, bytes);
    if (parsed.kind === 'index') {
      for (const child of parsed.index.manifests) await collect(child, into);
    } else {
      into.push(parsed.manifest);
      for (const part of [parsed.manifest.config, ...parsed.manifest.layers]) {
        if (isNondistributable(part.mediaType)) continue;
        await supply(part, signal);
        parts.set(part.digest, part);
      }
    }
    parts.set(manifest.digest, manifest);
    if (parsed.kind === 'index' || into !== manifests) return;
    if (referrerOf === undefined) return;
    try {
      const referrer = await referrerOf(manifest);
      await collect(referrer, []);
      referrers.push(referrer);
    } catch (error) {
      // Not all that an index lists are images: an attestation has nothing beside it.
      if (!isLayercacheError(error, 'UNSUPPORTED')) throw error;
      refused ??= error;
    }
  };
  await collect(descriptor, manifests);
  if (refused !== undefined && referrers.length === 0) throw refused;

  return {
    descriptor,
    name,
    parts: [...parts.values()],
    manifests,
    referrers,
    read: (digest) => layout.read(digest, { signal }),
    readTar: async (part) => {
      const layer = layerOf(part.digest);
      // Kept, because a tar archive needs the size before the bytes.
      const tar = await layer.uncompressed({ signal, keep: true });
      const diffID = layerOf(part.digest).diffID ?? claimedDiffID(part) ?? (await layer.prove({ signal }));
      const kept = await layout.blobSize(diffID);
      if (kept !== undefined) return { diffID, size: kept, tar };
      // It could not be kept, so it is decompressed once to count its bytes, and once to hand them out.
      const size = await sizeOf(tar);
      return { diffID, size, tar: await layer.uncompressed({ signal, keep: false }) };
    },
  };
}

async function sizeOf(stream: Readable): Promise<number> {
  let size = 0;
  for await (const bytes of stream as AsyncIterable<Uint8Array>) size += bytes.length;
  return size;
}
