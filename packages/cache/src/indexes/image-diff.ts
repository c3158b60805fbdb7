import { diffViews, type Change, type Content } from '@layercache/layer';
import type { ImageView, ReadFileOptions } from './image-view.js';

/**
 * What has to be done to one image to get the other, path by path. Contents are read only of files that may be the
 * same and are not in the same place of the same layer.
 */
export async function* diffImages(
  before: ImageView,
  after: ImageView,
  options: ReadFileOptions = {},
): AsyncGenerator<Change> {
  const asked: { readonly before: Content; readonly after: Content }[] = [];
  const note = (a: Content, b: Content): Promise<boolean> => {
    asked.push({ before: a, after: b });
    return Promise.resolve(true);
  };
  // All that will be asked, so that each layer is read once.
  const asking = diffViews(before.merged, after.merged, note);
  while ((await asking.next()).done !== true);
  const left = await before.digests(
    asked.map((pair) => pair.before),
    options,
  );
  const right = await after.digests(
    asked.map((pair) => pair.after),
    options,
  );
  yield* diffViews(before.merged, after.merged, (a, b) => Promise.resolve(left.get(a) === right.get(b)));
}
