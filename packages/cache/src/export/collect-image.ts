import type { OciLayout } from '@layercache/layout';
import {
  LayercacheError,
  MAX_MANIFEST_SIZE,
  claimedDiffID,
  isNondistributable,
  type Descriptor,
  type Digest,
  type ImageManifest,
} from '@layercache/oci';
import { parseManifest } from '../image-walk.js';
import type { Layer } from '../layer.js';
import type { BlobSupply } from '../pairing.js';
import type { ExportedImage } from './export-target.js';

/**
 * Everything an image in the cache refers to, all of it here.
 *
 * @throws LayercacheError `NOT_FOUND` when a part is not in the cache
 */
export async function collectImage(
  layout: OciLayout,
  supply: BlobSupply,
  layerOf: (digest: Digest) => Layer,
  descriptor: Descriptor,
  name: string | undefined,
  signal: AbortSignal | undefined,
): Promise<ExportedImage> {
  const parts = new Map<Digest, Descriptor>();
  const manifests: ImageManifest[] = [];

  const collect = async (manifest: Descriptor): Promise<void> => {
    await supply(manifest, signal);
    const bytes = await layout.readBytes(manifest.digest, { maxSize: MAX_MANIFEST_SIZE, signal });
    const parsed = parseManifest(manifest, bytes);
    if (parsed.kind === 'index') {
      for (const child of parsed.index.manifests) await collect(child);
    } else {
      manifests.push(parsed.manifest);
      for (const part of [parsed.manifest.config, ...parsed.manifest.layers]) {
        if (isNondistributable(part.mediaType)) continue;
        await supply(part, signal);
        parts.set(part.digest, part);
      }
    }
    parts.set(manifest.digest, manifest);
  };
  await collect(descriptor);

  return {
    descriptor,
    name,
    parts: [...parts.values()],
    manifests,
    read: (digest) => layout.read(digest, { signal }),
    readTar: async (part) => {
      const layer = layerOf(part.digest);
      // Kept, because a tar archive needs the size before the bytes.
      const tar = await layer.uncompressed({ signal, keep: true });
      const proven = layerOf(part.digest);
      const diffID = proven.diffID ?? claimedDiffID(part);
      const size = diffID === undefined ? undefined : await layout.blobSize(diffID);
      if (diffID === undefined || size === undefined) {
        tar.destroy();
        throw new LayercacheError('NOT_FOUND', `the tar of layer ${part.digest} is not in the cache`);
      }
      return { diffID, size, tar };
    },
  };
}
