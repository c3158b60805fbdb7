import type { Registry } from '@layercache/registry';

/** What adding an image needs of wherever the image is. Any registry has it; folders and archives get it. */
export type ImageReader = Pick<Registry, 'resolve' | 'fetchManifest' | 'fetchBlob'>;

/** One image, somewhere. */
export interface ImageSource {
  readonly reader: ImageReader;
  readonly repository: string;
  /** A tag or a digest. */
  readonly reference: string;
  /** The name the image has there, as a full reference; undefined when it has none. */
  readonly name: string | undefined;
  /** Where blobs can be had again: `registry.example/team/app`. Undefined for what is not a registry. */
  readonly origin: string | undefined;
  close(): Promise<void>;
}
