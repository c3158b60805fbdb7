import type { IncomingMessage } from 'node:http';
import {
  LayercacheError,
  MAX_MANIFEST_SIZE,
  digestAlgorithm,
  digestOf,
  isDigest,
  isImageManifestMediaType,
  isIndexMediaType,
  parseDocument,
  parseImageIndex,
  parseImageManifest,
} from '@layercache/oci';
import { z } from 'zod';
import { isTag } from '../reference.js';
import type { RegistryError } from '../registry-error.js';
import { subjectSchema } from '../subject.js';
import { bodyOf, sendBytes, sendEmpty, type Exchange } from './exchange.js';
import { invalid, isManifestReference } from './route.js';

interface ManifestRoute {
  readonly repository: string;
  /** A tag or a digest. */
  readonly reference: string;
}

/** RFC 6838, section 4.2 */
const MEDIA_TYPE = /^[a-z0-9][a-z0-9!#$&^_.+-]{0,126}\/[a-z0-9][a-z0-9!#$&^_.+-]{0,126}$/i;

const manifestSchema = subjectSchema.extend({ mediaType: z.string().optional() });

/** GET and HEAD /v2/<name>/manifests/<reference> (end-3) */
export async function getManifest(
  exchange: Exchange,
  { repository, reference }: ManifestRoute,
): Promise<void> {
  const { registry, request, response, signal } = exchange;
  checkKnowable(repository, reference);
  if (request.method === 'HEAD') {
    const { mediaType, digest, size } = await registry.resolve(repository, reference, { signal });
    sendEmpty(response, 200, {
      'Content-Type': mediaType,
      'Docker-Content-Digest': digest,
      'Content-Length': size,
    });
    return;
  }
  const { descriptor, bytes } = await registry.fetchManifest(repository, reference, { signal });
  sendBytes(response, 200, bytes, {
    'Content-Type': descriptor.mediaType,
    'Docker-Content-Digest': descriptor.digest,
  });
}

/** PUT /v2/<name>/manifests/<reference> (end-7a), and with `?tag=` (end-7b) */
export async function putManifest(
  exchange: Exchange,
  { repository, reference }: ManifestRoute,
): Promise<void> {
  const { registry, request, response, query, signal } = exchange;
  const tags = isDigest(reference) ? query.getAll('tag') : [reference];
  for (const tag of tags) {
    if (!isTag(tag)) {
      throw invalid('MANIFEST_INVALID', `${JSON.stringify(tag.slice(0, 160))} is neither a tag nor a digest`);
    }
  }
  const bytes = await readManifest(request);
  if (isDigest(reference)) checkDigest(reference, bytes);
  const { mediaType, subject } = readMediaType(request.headers['content-type'], bytes);
  const [first, ...others] = tags;
  const { digest } = await registry.pushManifest(repository, mediaType, bytes, {
    signal,
    ...(first === undefined ? {} : { tag: first }),
  });
  for (const tag of others) await registry.tag(repository, digest, tag, { signal });
  sendEmpty(response, 201, {
    Location: `/v2/${repository}/manifests/${digest}`,
    'Docker-Content-Digest': digest,
    ...(subject === undefined ? {} : { 'OCI-Subject': subject.digest }),
    ...(isDigest(reference) && tags.length > 0 ? { 'OCI-Tag': tags } : {}),
  });
}

/** DELETE /v2/<name>/manifests/<reference> (end-9) */
export async function deleteManifest(
  exchange: Exchange,
  { repository, reference }: ManifestRoute,
): Promise<void> {
  checkKnowable(repository, reference);
  await exchange.registry.deleteManifest(repository, reference, { signal: exchange.signal });
  sendEmpty(exchange.response, 202);
}

/** What cannot be the name of a manifest names none. */
function checkKnowable(repository: string, reference: string): void {
  if (isManifestReference(reference)) return;
  const shown = JSON.stringify(reference.slice(0, 160));
  throw new LayercacheError('NOT_FOUND', `${repository} has no manifest ${shown}: not a tag or a digest`);
}

async function readManifest(request: IncomingMessage): Promise<Uint8Array> {
  const announced = Number(request.headers['content-length'] ?? 0);
  if (announced > MAX_MANIFEST_SIZE) throw tooLarge();
  const chunks: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of bodyOf(request)) {
    size += chunk.length;
    if (size > MAX_MANIFEST_SIZE) throw tooLarge();
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}

function tooLarge(): RegistryError {
  return invalid('SIZE_INVALID', `a manifest has at most ${MAX_MANIFEST_SIZE} bytes: this has more`, 413);
}

function checkDigest(expected: string, bytes: Uint8Array): void {
  if (!isDigest(expected)) return;
  const found = digestOf(bytes, digestAlgorithm(expected));
  if (found !== expected) {
    throw invalid('DIGEST_INVALID', `the manifest pushed as ${expected} hashes to ${found}`);
  }
  if (digestAlgorithm(expected) !== 'sha256') {
    throw invalid(
      'DIGEST_INVALID',
      `manifests are stored under their sha256 digest here: push ${digestOf(bytes)}`,
    );
  }
}

/** The media type from the header, without its parameters; it must not contradict the document's own. */
function readMediaType(
  header: string | undefined,
  bytes: Uint8Array,
): Pick<z.infer<typeof manifestSchema>, 'subject'> & { readonly mediaType: string } {
  const manifest = parseDocument(manifestSchema, bytes, 'the manifest');
  const mediaType = header?.split(';')[0]?.trim() ?? manifest.mediaType;
  if (mediaType === undefined || mediaType === '') {
    throw invalid('MANIFEST_INVALID', 'the manifest has no media type: send a Content-Type');
  }
  // It becomes a header of every answer that has the manifest.
  if (!MEDIA_TYPE.test(mediaType)) {
    const shown = JSON.stringify(mediaType.slice(0, 160));
    throw invalid('MANIFEST_INVALID', `${shown} is not a media type as RFC 6838 has them`);
  }
  if (manifest.mediaType !== undefined && manifest.mediaType !== mediaType) {
    throw invalid(
      'MANIFEST_INVALID',
      `the manifest says it is ${manifest.mediaType}, its Content-Type ${mediaType}`,
    );
  }
  if (isIndexMediaType(mediaType)) parseImageIndex(bytes, 'the image index');
  if (isImageManifestMediaType(mediaType)) parseImageManifest(bytes, 'the image manifest');
  return { mediaType, subject: manifest.subject };
}
