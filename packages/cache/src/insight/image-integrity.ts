import {
  isLayercacheError,
  isManifestMediaType,
  isNondistributable,
  layerForm,
  claimedDiffID,
  parseImageConfig,
  refName,
  throwIfAborted,
  type Descriptor,
  type Digest,
} from '@layercache/oci';
import type { OciLayout, VerifyProblem, VerifyReport } from '@layercache/layout';
import { CACHE_TAG } from '../entries/names.js';
import { ImageGraph, type ManifestNode } from '../images/image-graph.js';
import { MAX_CONFIG_SIZE, isImageConfig } from '../images/manifest.js';

export interface ImageCheckContext {
  readonly layout: OciLayout;
  /** Whether a blob is here, or a place is known that has it. */
  readonly canBeHad: (blob: Descriptor) => Promise<boolean>;
  readonly signal: AbortSignal | undefined;
}

/**
 * Adds to a report which images cannot be used: a blob is neither here nor known to be elsewhere, or the config claims a
 * diffID that a layer was proven not to have. The children of an index that were never added are no fault.
 */
export async function withImageCheck(
  report: VerifyReport,
  context: ImageCheckContext,
): Promise<VerifyReport> {
  const start = performance.now();
  const { layout, signal } = context;
  const manifests = new Map<Digest, { readonly descriptor: Descriptor; readonly names: string[] }>();
  for (const { descriptor } of layout.entries()) {
    const name = refName(descriptor);
    if (!isManifestMediaType(descriptor.mediaType) || name === CACHE_TAG) continue;
    const known = manifests.get(descriptor.digest) ?? { descriptor, names: [] };
    if (name !== undefined) known.names.push(name);
    manifests.set(descriptor.digest, known);
  }
  const graph = new ImageGraph(layout);
  // Told already, and still there.
  const told = new Set(report.problems.flatMap(({ digest, repaired }) => (repaired ? [] : (digest ?? []))));
  const problems: VerifyProblem[] = [];
  for (const { descriptor, names } of manifests.values()) {
    throwIfAborted(signal);
    const node = await graph.node(descriptor);
    if (node.kind !== 'image') continue;
    const image = names.length === 0 ? `image ${descriptor.digest}` : `image ${names.join(', ')}`;
    for (const problem of [
      await missingBlobs(context, node, image, told),
      await wrongDiffID(context, node, image),
    ])
      if (problem !== undefined) problems.push(problem);
  }
  const step = {
    name: 'images',
    checked: manifests.size,
    problems: problems.length,
    milliseconds: Math.round(performance.now() - start),
  } as const;
  const count = (kind: VerifyProblem['kind']): number => problems.filter((each) => each.kind === kind).length;
  return {
    ...report,
    steps: [...report.steps, step],
    problems: [...report.problems, ...problems],
    found: {
      ...report.found,
      missing: report.found.missing + count('missing'),
      invalid: report.found.invalid + count('invalid'),
    },
    ok: report.ok && problems.length === 0,
  };
}

async function missingBlobs(
  { layout, canBeHad }: ImageCheckContext,
  { descriptor, blobs }: ManifestNode,
  image: string,
  told: ReadonlySet<Digest>,
): Promise<VerifyProblem | undefined> {
  const missing: Digest[] = [];
  for (const blob of blobs) {
    if (isNondistributable(blob.mediaType) || told.has(blob.digest) || (await canBeHad(blob))) continue;
    if (!(await isDerivable(layout, blob))) missing.push(blob.digest);
  }
  const [first] = missing;
  if (first === undefined) return undefined;
  const others = missing.length === 1 ? '' : ` and ${missing.length - 1} more`;
  return {
    step: 'images',
    kind: 'missing',
    digest: descriptor.digest,
    message: `${image} is incomplete: blob ${first}${others} is not here, and no place is known that has it; add the image again, or remove it`,
    repaired: false,
  };
}

/** Whether a tar can be made from a compressed form that is here. */
async function isDerivable(layout: OciLayout, { digest, mediaType }: Descriptor): Promise<boolean> {
  if (layerForm(mediaType) !== 'tar') return false;
  for (const { descriptor } of layout.lookup(digest)) {
    if (descriptor.digest !== digest && (await layout.has(descriptor.digest, descriptor.size))) return true;
  }
  return false;
}

async function wrongDiffID(
  { layout }: ImageCheckContext,
  { descriptor, blobs }: ManifestNode,
  image: string,
): Promise<VerifyProblem | undefined> {
  const [config, ...layers] = blobs;
  if (config === undefined || !isImageConfig(config)) return undefined;
  const claimed = await diffIDsOf(layout, config);
  if (claimed.length !== layers.length) return undefined;
  for (const [at, { digest, mediaType }] of layers.entries()) {
    if (layerForm(mediaType) === undefined) continue;
    const proven = layout
      .lookup(digest)
      .find((entry) => entry.descriptor.digest === digest && entry.proven)?.descriptor;
    const diffID = proven === undefined ? undefined : claimedDiffID(proven);
    if (diffID === undefined || diffID === claimed[at]) continue;
    return {
      step: 'images',
      kind: 'invalid',
      digest: descriptor.digest,
      message: `${image} cannot be used: its config claims the diffID ${String(claimed[at])} for layer ${digest}, whose tar hashes to ${diffID}; add it from a source that you trust, or remove it`,
      repaired: false,
    };
  }
  return undefined;
}

/** Empty when the config is not here, or is not a valid one: then it claims nothing. */
async function diffIDsOf(layout: OciLayout, config: Descriptor): Promise<readonly Digest[]> {
  try {
    const bytes = await layout.readBytes(config.digest, { maxSize: MAX_CONFIG_SIZE, touch: false });
    return parseImageConfig(bytes, `image config ${config.digest}`).rootfs.diff_ids;
  } catch (error) {
    if (isLayercacheError(error, 'NOT_FOUND', 'DOCUMENT_INVALID', 'DIGEST_MISMATCH')) return [];
    throw error;
  }
}
