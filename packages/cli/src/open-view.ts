import { parsePlatform, type ImageView, type LayerCache } from '@layercache/cache';
import { MergedView } from '@layercache/layer';
import { isLayercacheError } from '@layercache/oci';

export interface ViewOptions {
  readonly platform?: string | undefined;
  readonly signal: AbortSignal;
}

export function openImage(cache: LayerCache, image: string, options: ViewOptions): Promise<ImageView> {
  const { platform, signal } = options;
  return cache.view(image, {
    platform: platform === undefined ? undefined : parsePlatform(platform),
    signal,
  });
}

/** The files of an image, or those that one layer brings. */
export async function viewFiles(
  cache: LayerCache,
  imageOrLayer: string,
  options: ViewOptions,
): Promise<MergedView> {
  try {
    return (await openImage(cache, imageOrLayer, options)).merged;
  } catch (error) {
    const isDigest = /^sha(256|512):/.test(imageOrLayer);
    if (!isDigest || !isLayercacheError(error, 'NOT_FOUND')) throw error;
  }
  const { diffID, ztoc } = await cache.layerIndex(imageOrLayer, { signal: options.signal });
  return MergedView.merge([{ diffID, entries: ztoc.entries }], { signal: options.signal });
}
