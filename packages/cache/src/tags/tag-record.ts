import { LayercacheError, descriptorSchema, parseDocument, type Descriptor } from '@layercache/oci';
import { z } from 'zod';

/** How many sightings of a tag are remembered. */
export const HISTORY_LIMIT = 20;

/** One digest that a tag had, for as long as it was seen to have it. */
export interface TagSighting {
  readonly descriptor: Descriptor;
  /** Milliseconds since 1970: when the registry was asked. */
  readonly firstSeen: number;
  readonly lastSeen: number;
}

/** What is known of one tag. Immutable. */
export interface TagRecord {
  /** The full reference: `docker.io/library/alpine:3.20`. */
  readonly name: string;
  /** Oldest first; neighbours differ. At most {@link HISTORY_LIMIT}. */
  readonly sightings: readonly TagSighting[];
  /** What was seen up to then does not count any more. */
  readonly invalidatedAt?: number | undefined;
}

const time = z.int().nonnegative();

const recordSchema = z.object({
  version: z.literal(1),
  name: z.string(),
  sightings: z
    .array(
      z.object({
        descriptor: descriptorSchema.pick({ mediaType: true, digest: true, size: true }),
        firstSeen: time,
        lastSeen: time,
      }),
    )
    .max(HISTORY_LIMIT),
  invalidatedAt: time.optional(),
});

export function encodeTagRecord(record: TagRecord): Uint8Array {
  return Buffer.from(JSON.stringify({ version: 1, ...record }));
}

/** Undefined when the bytes are not a record of that tag: then it is as if it had never been resolved. */
export function decodeTagRecord(name: string, bytes: Uint8Array): TagRecord | undefined {
  try {
    const record = parseDocument(recordSchema, bytes, `the record of tag ${name}`);
    const { sightings, invalidatedAt } = record;
    return record.name === name ? { name, sightings, invalidatedAt } : undefined;
  } catch (error) {
    if (error instanceof LayercacheError) return undefined;
    throw error;
  }
}

/** The record after the registry was asked at a time, and said this. An answer older than what is known is no news. */
export function withSighting(before: TagRecord, descriptor: Descriptor, at: number): TagRecord {
  const last = before.sightings.at(-1);
  const seen = { mediaType: descriptor.mediaType, digest: descriptor.digest, size: descriptor.size };
  if (last === undefined || (last.descriptor.digest !== seen.digest && at > last.lastSeen)) {
    const sightings = [...before.sightings, { descriptor: seen, firstSeen: at, lastSeen: at }];
    return { ...before, sightings: sightings.slice(-HISTORY_LIMIT) };
  }
  if (last.descriptor.digest !== seen.digest) return before;
  const longer = { ...last, lastSeen: Math.max(last.lastSeen, at) };
  return { ...before, sightings: [...before.sightings.slice(0, -1), longer] };
}

/** Whether the last sighting came before it was said that what was seen does not count. */
export function isInvalidated(record: TagRecord): boolean {
  const last = record.sightings.at(-1);
  return record.invalidatedAt !== undefined && (last === undefined || last.lastSeen <= record.invalidatedAt);
}
