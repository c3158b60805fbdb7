import { z } from 'zod';
import {
  LayercacheError,
  MediaType,
  descriptorSchema,
  imageIndexSchema,
  isLayercacheError,
  parseDocument,
  type Descriptor,
} from '@layercache/oci';
import type { Entry } from './entry.js';

/** `index.json` without its entries: whatever else stands at its top level, kept as it came. */
export type IndexHead = Readonly<Record<string, unknown>>;

export interface IndexDocument {
  readonly head: IndexHead;
  readonly manifests: readonly Descriptor[];
  /** Entries with a size that no blob can have. They are left out, and not written again. */
  readonly left: number;
}

export const emptyHead: IndexHead = { mediaType: MediaType.index, schemaVersion: 2 };

/** How deeply objects and lists may lie in each other. No known field needs more than four levels. */
const MAX_DEPTH = 100;

/** Whether the size of an entry is beyond 2^53: no blob is so large, and no number here can hold it. */
function isImpossible(entry: unknown): boolean {
  if (typeof entry !== 'object' || entry === null || !('size' in entry)) return false;
  const { size } = entry;
  return typeof size === 'number' && size > Number.MAX_SAFE_INTEGER;
}

/** `"manifests": null` is an empty list, as Go writes it (opencontainers/image-spec#644). */
const indexFileSchema = imageIndexSchema.extend({
  manifests: z
    .array(z.preprocess((one) => (isImpossible(one) ? undefined : one), descriptorSchema.optional()))
    .nullable()
    .transform((manifests) => manifests ?? []),
});

/** Whether the bytes are an index, and not what another program has begun to write or will never finish. */
export function isWholeIndex(bytes: Uint8Array, path: string): boolean {
  try {
    parseIndexDocument(bytes, path);
    return true;
  } catch (error) {
    if (!isLayercacheError(error, 'LAYOUT_INVALID')) throw error;
    return false;
  }
}

/** @throws LayercacheError `LAYOUT_INVALID`, with the place that is wrong */
export function parseIndexDocument(bytes: Uint8Array, path: string): IndexDocument {
  try {
    const { manifests: all, ...head } = parseDocument(indexFileSchema, bytes, path);
    const manifests = all.filter((one) => one !== undefined);
    const deep = isDeep(head) ? 'the document' : manifests.find((one) => isDeep(one))?.digest;
    if (deep !== undefined) {
      throw new LayercacheError(
        'DOCUMENT_INVALID',
        `${path} is not valid: ${deep}: objects and lists lie in each other more than ${MAX_DEPTH} deep`,
      );
    }
    return { head, manifests, left: all.length - manifests.length };
  } catch (error) {
    if (!isLayercacheError(error, 'DOCUMENT_INVALID')) throw error;
    throw new LayercacheError(
      'LAYOUT_INVALID',
      `${error.message}; it was left as it is: restore it with verify --repair, or from a copy`,
      { cause: error },
    );
  }
}

/** The canonical text of `index.json`, piece by piece: keys sorted, no whitespace, entries in their order. */
export function* indexText(head: IndexHead, entries: Iterable<Entry>): Generator<string> {
  const names = [...Object.keys(head).filter((name) => name !== 'manifests'), 'manifests'].sort();
  let separator = '{';
  for (const name of names) {
    yield `${separator}${JSON.stringify(name)}:`;
    separator = ',';
    if (name !== 'manifests') {
      yield canonicalJson(head[name]);
      continue;
    }
    let between = '[';
    for (const { descriptor } of entries) {
      yield between + canonicalJson(descriptor);
      between = ',';
    }
    yield between === '[' ? '[]' : ']';
  }
  yield '}';
}

/** Whether a value is nested too deeply to be written again. Does not recurse, so it may be as deep as it likes. */
export function isDeep(value: unknown): boolean {
  let level: unknown[] = [value];
  for (let depth = 0; depth <= MAX_DEPTH; depth++) {
    const below: unknown[] = [];
    for (const one of level) {
      if (typeof one !== 'object' || one === null) continue;
      for (const inner of Object.values(one))
        if (typeof inner === 'object' && inner !== null) below.push(inner);
    }
    if (below.length === 0) return false;
    level = below;
  }
  return true;
}

/** JSON with the keys of every object sorted and no whitespace. */
export function canonicalJson(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(canonicalJson).join(',')}]`;
  if (typeof value !== 'object' || value === null) return JSON.stringify(value);
  const fields = Object.entries(value)
    .filter(([, field]) => field !== undefined)
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([name, field]) => `${JSON.stringify(name)}:${canonicalJson(field)}`);
  return `{${fields.join(',')}}`;
}
