import {
  IntegrityError,
  LayercacheError,
  claimedDiffID,
  layerForm,
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
    if (before.proven) checkAgainst(before.descriptor, entry);
    else if (await layout.has(entry.digest, entry.size)) await pairing.prove(entry, signal);
    else return entry;
    return before.proven ? asBefore(before.descriptor, entry) : entry;
  } catch (error) {
    if (!(error instanceof LayercacheError) || error.code === 'ABORTED' || error.code === 'STORAGE')
      throw error;
    if (refuse && error.code === 'DIFFID_MISMATCH') throw error;
    const { digest } = entry;
    logger.warn({ message: 'false claim about a layer left out', digest, error: error.message });
    return asBefore(before.descriptor, entry);
  }
}

/** Whether a new entry says of a compressed layer what the one that is there does not. */
function contradicts({ descriptor }: Entry, entry: Descriptor): boolean {
  const form = layerForm(entry.mediaType);
  if (form === undefined || form === 'tar') return false;
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
