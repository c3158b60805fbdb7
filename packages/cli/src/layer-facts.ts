import type { Layer } from '@layercache/cache';
import type { Digest } from '@layercache/oci';

/** What the commands say of a layer. Sizes in bytes. */
export interface LayerFacts {
  readonly diffID: Digest | undefined;
  readonly digests: readonly Digest[];
  readonly mediaType: string;
  readonly size: { readonly compressed: number | undefined; readonly uncompressed: number | undefined };
  /** Whether this machine has seen that they belong together, or was only told. */
  readonly proven: boolean;
  readonly forms: readonly { readonly mediaType: string; readonly digest: Digest; readonly size: number }[];
}

export function layerFacts(layer: Layer): LayerFacts {
  const forms = [
    ...layer.compressedForms,
    ...(layer.uncompressedForm === undefined ? [] : [layer.uncompressedForm]),
  ];
  return {
    diffID: layer.diffID,
    digests: layer.digests,
    mediaType: layer.mediaType,
    size: layer.size,
    proven: layer.proven,
    forms: forms.map(({ mediaType, digest, size }) => ({ mediaType, digest, size })),
  };
}
