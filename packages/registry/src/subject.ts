import { annotationsSchema, descriptorSchema, type Descriptor } from '@layercache/oci';
import { z } from 'zod';

/** What of a manifest decides where it is listed as a referrer (distribution specification, "Listing Referrers"). */
export const subjectSchema = z.looseObject({
  artifactType: z.string().optional(),
  config: z.looseObject({ mediaType: z.string() }).optional(),
  subject: descriptorSchema.optional(),
  annotations: annotationsSchema.optional(),
});

/** The descriptor under which a manifest with a subject is listed: with its artifact type and annotations. */
export function referrerOf(descriptor: Descriptor, manifest: z.infer<typeof subjectSchema>): Descriptor {
  const artifactType = manifest.artifactType === '' ? undefined : manifest.artifactType;
  const { mediaType, digest, size } = descriptor;
  const listed = artifactType ?? manifest.config?.mediaType;
  return {
    mediaType,
    digest,
    size,
    ...(listed === undefined ? {} : { artifactType: listed }),
    ...(manifest.annotations === undefined ? {} : { annotations: manifest.annotations }),
  };
}
