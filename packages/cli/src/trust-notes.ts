import type { ImageView, LayerCache, SkippedPart } from '@layercache/cache';
import { plural, type Output } from './output.js';

/** Says in one line that an image is handed out by a name which nobody but a shared cache gave it. */
export function warnOfClaimedName(cache: LayerCache, name: string, output: Output): void {
  if (!cache.isClaimedName(name)) return;
  output.warn(
    `${name} is a claimed name: a shared cache says that it means this image, and its registry has not confirmed it`,
  );
}

/** Says in one line that the files of an image are what somebody else says. */
export function warnOfClaimedFiles(view: Pick<ImageView, 'claimed'>, output: Output): void {
  if (!view.claimed) return;
  output.warn(
    'claimed: the list of files comes from a shared cache, and the layers are not here to check it (layercache extract reads them)',
  );
}

/** Says how much could not be pushed or pulled; the log has named each part. */
export function warnOfSkipped(skipped: readonly SkippedPart[], output: Output): void {
  if (skipped.length > 0)
    output.warn(`${plural(skipped.length, 'part')} could not be had and had to be skipped`);
}
