import { parsePlatform, type ImageView, type LayerCache } from '@layercache/cache';
import { MergedView } from '@layercache/layer';
import { isLayercacheError } from '@layercache/oci';

export interface ViewOptions {
  readonly platform?: string | undefined;
  readonly provenOnly?: boolean;
  readonly signal: AbortSignal;
}

export function openImage(cache: LayerCache, image: string, options: ViewOptions): Promise<ImageView> {
  const { platform, provenOnly, signal } = options;
  return cache.view(image, {
    platform: platform === undefined ? undefined : parsePlatform(platform),
    provenOnly,
    signal,
  });
}

/** Files, and how far they can be believed. */
export interface ViewedFiles {
  readonly merged: MergedView;
  /** The layers of which only somebody else says what is in them, by their position. */
  readonly claimedLayers: ReadonlySet<number>;
}

/** The files of an image, or those that one layer brings. */
export async function viewFiles(
  cache: LayerCache,
  imageOrLayer: string,
  options: ViewOptions,
): Promise<ViewedFiles> {
  try {
    const { merged, layers } = await openImage(cache, imageOrLayer, options);
    return { merged, claimedLayers: claimedOf(layers) };
  } catch (error) {
    const isDigest = /^sha(256|512):/.test(imageOrLayer);
    if (!isDigest || !isLayercacheError(error, 'NOT_FOUND')) throw error;
  }
  const index = await cache.layerIndex(imageOrLayer, { signal: options.signal });
  const layers = [{ diffID: index.diffID, entries: index.ztoc.entries }];
  const merged = await MergedView.merge(layers, { signal: options.signal });
  return { merged, claimedLayers: claimedOf([index]) };
}

function claimedOf(layers: readonly { readonly proven: boolean }[]): Set<number> {
  return new Set(layers.flatMap(({ proven }, position) => (proven ? [] : [position])));
}
