import { isIndexMediaType, isManifestMediaType, parseImageIndex } from '@layercache/oci';
import { forward } from '../forward.js';
import type { Registry } from '../registry.js';
import { RegistryError } from '../registry-error.js';

/** Takes an image index only when all it lists are manifests, as Harbor, ECR, Quay and others do. */
export function strictIndexes(registry: Registry): Registry {
  return {
    ...forward(registry),
    pushManifest: async (repository, mediaType, bytes, options) => {
      if (isIndexMediaType(mediaType)) refuseOthers(bytes);
      return registry.pushManifest(repository, mediaType, bytes, options);
    },
  };
}

function refuseOthers(bytes: Uint8Array): void {
  const other = parseImageIndex(bytes).manifests.find(({ mediaType }) => !isManifestMediaType(mediaType));
  if (other === undefined) return;
  const message = `the index lists ${other.digest}, which is a ${other.mediaType} and no manifest`;
  throw new RegistryError('REGISTRY', message, {
    status: 400,
    reported: [{ code: 'MANIFEST_INVALID', message }],
  });
}
