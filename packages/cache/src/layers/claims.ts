import {
  Annotation,
  IntegrityError,
  LayercacheError,
  MediaType,
  claimedDiffID,
  isLayercacheError,
  layerForm,
  withAnnotations,
  type Descriptor,
  type Digest,
  type Logger,
} from '@layercache/oci';
import type { Entry, OciLayout } from '@layercache/layout';
import { entryOf } from '../entries/entry.js';
import { isOriginAnnotation } from '../entries/origins.js';
import type { Pairing } from '../pairing.js';

export interface ClaimsContext {
  readonly layout: OciLayout;
  readonly pairing: Pairing;
  readonly logger: Logger;
}

/**
 * The entry to put for what a document says of a blob. Where that contradicts the entry that is there (another form of
 * a layer, another diffID, no layer at all), neither document is better: decompressing tells, and is done here where
 * the bytes are at hand. What was proven once is not looked at again. A false claim is left out of the result.
 *
 * @param options.refuse whether a false diffID is an error instead
 * @throws IntegrityError `DIFFID_MISMATCH` with `refuse`
 * @throws LayercacheError `ABORTED`, `STORAGE`
 */
export async function settledEntry(
  { layout, pairing, logger }: ClaimsContext,
  entry: Descriptor,
  options: { readonly refuse?: boolean; readonly signal?: AbortSignal | undefined } = {},
): Promise<Descriptor> {
  const { refuse = false, signal } = options;
  const before = layout
    .lookup(entry.digest)
    .filter(({ descriptor }) => descriptor.digest === entry.digest)
    .find((each) => contradicts(each, entry));
  if (before === undefined) return entry;
  try {
    if (before.proven) {
      checkAgainst(before.descriptor, entry);
      return asBefore(before.descriptor, entry);
    }
    if (!(await layout.has(entry.digest))) return entry;
    if (isCompressed(entry)) {
      await pairing.prove(entry, signal);
      return entry;
    }
    if (await isWhatItSays(pairing, before.descriptor, signal)) return asBefore(before.descriptor, entry);
    // What was said before is false: the bytes are here, and they are no such layer.
    await layout.put(withAnnotations(entry, { [Annotation.diffID]: '' }), { proven: true });
    return entry;
  } catch (error) {
    if (!(error instanceof LayercacheError) || error.code === 'ABORTED' || error.code === 'STORAGE')
      throw error;
    if (refuse && error.code === 'DIFFID_MISMATCH') throw error;
    const { digest } = entry;
    logger.warn({ message: 'false claim about a layer left out', digest, error: error.message });
    return asBefore(before.descriptor, entry);
  }
}

/**
 * Whether the bytes of a compressed layer decompress as its entry says.
 *
 * @throws LayercacheError anything that says nothing about the bytes
 */
async function isWhatItSays(
  pairing: Pairing,
  descriptor: Descriptor,
  signal: AbortSignal | undefined,
): Promise<boolean> {
  try {
    await pairing.prove(descriptor, signal);
    return true;
  } catch (error) {
    if (isLayercacheError(error, 'COMPRESSION_INVALID')) return false;
    // Its diffID was another one, which is corrected by now: it is a layer.
    if (isLayercacheError(error, 'DIFFID_MISMATCH')) return true;
    throw error;
  }
}

function isCompressed({ mediaType }: Descriptor): boolean {
  const form = layerForm(mediaType);
  return form !== undefined && form !== 'tar';
}

/** Whether a new entry says of a blob that it is, or is not, a compressed layer, and the one that is there differs. */
function contradicts({ descriptor }: Entry, entry: Descriptor): boolean {
  if (!isCompressed(entry)) return isCompressed(descriptor) && entry.mediaType !== MediaType.octetStream;
  const form = layerForm(entry.mediaType);
  const [before, claimed] = [claimedDiffID(descriptor), claimedDiffID(entry)];
  return (
    layerForm(descriptor.mediaType) !== form ||
    (before !== undefined && claimed !== undefined && before !== claimed)
  );
}

/** @throws IntegrityError `DIFFID_MISMATCH` when the proven diffID is another */
function checkAgainst(proof: Descriptor, { digest, ...entry }: Descriptor): void {
  const found = claimedDiffID(proof);
  const expected: Digest | undefined = claimedDiffID({ ...entry, digest });
  if (found === undefined || expected === undefined || found === expected) return;
  throw new IntegrityError(
    'DIFFID_MISMATCH',
    `layer ${digest} was said to have the diffID ${expected}, but its tar hashes to ${found}: do not trust where the claim came from`,
    { expected, found },
  );
}

/** What the new entry adds that is no claim: where the blob can be had. */
function asBefore(before: Descriptor, { annotations, ...entry }: Descriptor): Descriptor {
  const { mediaType } = before;
  const plain = entryOf({ ...entry, mediaType });
  const origins = Object.fromEntries(
    Object.entries(annotations ?? {}).filter(([name]) => isOriginAnnotation(name)),
  );
  return Object.keys(origins).length === 0 ? plain : { ...plain, annotations: origins };
}
