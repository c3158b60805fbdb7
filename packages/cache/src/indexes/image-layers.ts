import type { OciLayout } from '@layercache/layout';
import {
  LayercacheError,
  MAX_MANIFEST_SIZE,
  layerForm,
  type Descriptor,
  type ImageConfig,
  type Platform,
} from '@layercache/oci';
import {
  MAX_CONFIG_SIZE,
  claimPairs,
  isImageConfig,
  parseManifest,
  readImageConfig,
} from '../images/manifest.js';
import type { BlobSupply } from '../pairing.js';
import { hostPlatform, selectPlatform } from '../platform.js';

/** An image for one platform. */
export interface ImageLayers {
  /** Of its manifest. */
  readonly manifest: Descriptor;
  readonly config: ImageConfig;
  /** Bottom to top, with the diffIDs that the config claims. */
  readonly layers: readonly Descriptor[];
}

/**
 * The layers of an image; of an index, those of one of its images.
 *
 * @throws LayercacheError `PLATFORM_NOT_FOUND`, `DOCUMENT_INVALID`; `UNSUPPORTED` when it is no image of layers
 */
export async function imageLayers(
  layout: OciLayout,
  supply: BlobSupply,
  image: Descriptor,
  options: { readonly platform?: Platform | undefined; readonly signal?: AbortSignal | undefined } = {},
): Promise<ImageLayers> {
  const { platform = hostPlatform(), signal } = options;
  const read = async (document: Descriptor, maxSize: number): Promise<Uint8Array> => {
    await supply(document, signal);
    return layout.readBytes(document.digest, { maxSize, signal });
  };
  const parsed = parseManifest(image, await read(image, MAX_MANIFEST_SIZE));
  if (parsed.kind === 'index') {
    const chosen = selectPlatform(parsed.index.manifests, platform, `image index ${image.digest}`);
    return imageLayers(layout, supply, chosen, options);
  }
  const { manifest } = parsed;
  const odd = manifest.layers.find((layer) => layerForm(layer.mediaType) === undefined);
  if (!isImageConfig(manifest.config) || odd !== undefined) {
    throw new LayercacheError(
      'UNSUPPORTED',
      `${image.digest} is not an image: ${odd === undefined ? `its config is of the type ${manifest.config.mediaType}` : `it has a layer of the type ${odd.mediaType}`}`,
    );
  }
  const config = readImageConfig(manifest, await read(manifest.config, MAX_CONFIG_SIZE));
  return { manifest: image, config, layers: claimPairs(manifest, config, image.digest) };
}
