import type { Registry } from '@layercache/registry';
import type { BlobOrigin } from '../entries/origins.js';

/** What adding an image needs of wherever the image is. Any registry has it; folders and archives get it. */
export type ImageReader = Pick<Registry, 'resolve' | 'fetchManifest' | 'fetchBlob'>;

/** One image, somewhere. */
export interface ImageSource {
  /** How the user wrote it. */
  readonly label: string;
  readonly reader: ImageReader;
  readonly repository: string;
  /** A tag or a digest. */
  readonly reference: string;
  /** The name the image has there, as a full reference; undefined when it has none. */
  readonly name: string | undefined;
  /** Where blobs can be had again. Undefined for what is not a registry. */
  readonly origin: BlobOrigin | undefined;
  close(): Promise<void>;
}
