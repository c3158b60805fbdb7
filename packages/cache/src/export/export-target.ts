import type { Readable } from 'node:stream';
import {
  Annotation,
  refName,
  withAnnotations,
  type Descriptor,
  type Digest,
  type ImageManifest,
} from '@layercache/oci';

/** An image that is to be handed to other tools, and where to read it. */
export interface ExportedImage {
  /** Of its manifest or index. */
  readonly descriptor: Descriptor;
  readonly name: string | undefined;
  /** Everything the image and its referrers refer to, themselves included, parts before what refers to them, each once. */
  readonly parts: readonly Descriptor[];
  /** Its manifests for single platforms. */
  readonly manifests: readonly ImageManifest[];
  /** Manifests beside it, whose `subject` is one of its own. They are among the parts. */
  readonly referrers: readonly Descriptor[];
  read(digest: Digest): Readable;
  /** The tar of a layer, and its size in bytes. */
  readTar(
    layer: Descriptor,
  ): Promise<{ readonly diffID: Digest; readonly size: number; readonly tar: Readable }>;
}

export interface ExportTarget {
  write(image: ExportedImage, signal: AbortSignal | undefined): Promise<void>;
}

/** The entry of the image where it goes. containerd's name for it holds only as long as it keeps its name. */
export function namedDescriptor({ descriptor, name }: ExportedImage): Descriptor {
  const renamed = name !== refName(descriptor);
  return withAnnotations(descriptor, {
    [Annotation.refName]: name,
    ...(renamed ? { [Annotation.containerdName]: undefined } : {}),
  });
}
