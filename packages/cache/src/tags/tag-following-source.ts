import { isDigest } from '@layercache/oci';
import type { ImageSource } from '../sources/image-source.js';
import type { TagResolver } from './tag-resolver.js';

/** The same image; what its tag means is asked of the registry through the resolver, which remembers the answer. */
export function tagFollowingSource(source: ImageSource, tags: TagResolver): ImageSource {
  const { reader, name, origin, reference } = source;
  if (origin === undefined || name === undefined || isDigest(reference)) return source;
  return {
    ...source,
    reader: {
      resolve: async (_repository, _reference, options) =>
        (await tags.resolve(name, { ...options, maxAge: 0 })).descriptor,
      fetchManifest: (...all) => reader.fetchManifest(...all),
      fetchBlob: (...all) => reader.fetchBlob(...all),
    },
  };
}
