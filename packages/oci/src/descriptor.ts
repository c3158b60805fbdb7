import { z } from 'zod';
import { isDigest, type Digest } from './digest.js';

export const digestSchema = z.custom<Digest>((value) => typeof value === 'string' && isDigest(value), {
  message: 'not a digest: expected sha256:<64 hex> or sha512:<128 hex>, in lower case',
});

/** RFC 6838 section 4.2: type "/" subtype, as descriptor.md demands. */
const mediaTypeSchema = z.string().regex(/^[A-Za-z0-9][\w!#$&^.+-]{0,126}\/[A-Za-z0-9][\w!#$&^.+-]{0,126}$/, {
  message: 'not a media type',
});

export const annotationsSchema = z.record(z.string(), z.string());

/** Image index specification, "platform". Fields it does not name are kept. */
export const platformSchema = z.looseObject({
  architecture: z.string(),
  os: z.string(),
  'os.version': z.string().optional(),
  'os.features': z.array(z.string()).optional(),
  variant: z.string().optional(),
});
export type Platform = z.infer<typeof platformSchema>;

/** OCI content descriptor (descriptor.md). Fields it does not name are kept. */
export const descriptorSchema = z.looseObject({
  mediaType: mediaTypeSchema,
  digest: digestSchema,
  /** Bytes. */
  size: z.int().nonnegative(),
  urls: z.array(z.string()).optional(),
  annotations: annotationsSchema.optional(),
  data: z.string().optional(),
  artifactType: z.string().optional(),
  platform: platformSchema.optional(),
});

export interface Descriptor {
  readonly mediaType: string;
  readonly digest: Digest;
  /** Bytes. */
  readonly size: number;
  readonly urls?: readonly string[] | undefined;
  readonly annotations?: Readonly<Record<string, string>> | undefined;
  readonly data?: string | undefined;
  readonly artifactType?: string | undefined;
  readonly platform?: Platform | undefined;
  /** Fields of a later specification, kept as they came. */
  readonly [field: string]: unknown;
}
