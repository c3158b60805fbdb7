import {
  MAX_MANIFEST_SIZE,
  MediaType,
  isLayercacheError,
  type Descriptor,
  type Digest,
} from '@layercache/oci';
import { sendBytes, sendJson, type Exchange, type Headers } from './exchange.js';
import { RegistryError } from '../registry-error.js';
import { invalid } from './route.js';

/** Names in one answer; whoever wants more follows the link. */
const MAX_NAMES = 10_000;

/** GET /v2/<name>/tags/list (end-8a, end-8b) */
export async function listTags(
  exchange: Exchange,
  { repository }: { readonly repository: string },
): Promise<void> {
  const page = await namesPage(exchange, `/v2/${repository}/tags/list`, (options) =>
    exchange.registry.tags(repository, options),
  );
  sendJson(exchange.response, 200, { name: repository, tags: page.names }, page.headers);
}

/** GET /v2/_catalog (Docker registry API; not in the distribution specification) */
export async function listRepositories(exchange: Exchange): Promise<void> {
  const page = await namesPage(exchange, '/v2/_catalog', (options) =>
    exchange.registry.repositories(options),
  );
  sendJson(exchange.response, 200, { repositories: page.names }, page.headers);
}

async function namesPage(
  { query, signal }: Exchange,
  path: string,
  list: (options: { signal: AbortSignal; after?: string }) => AsyncIterable<string>,
): Promise<{ names: string[]; headers: Headers }> {
  const wanted = query.get('n');
  if (wanted !== null && !/^\d{1,9}$/.test(wanted)) {
    throw invalid('PAGINATION_NUMBER_INVALID', `n=${wanted.slice(0, 40)} is not a number of names`);
  }
  const limit = Math.min(Number(wanted ?? MAX_NAMES), MAX_NAMES);
  const after = query.get('last');
  const names: string[] = [];
  let more = false;
  for await (const name of list({ signal, ...(after === null ? {} : { after }) })) {
    more = names.length === limit;
    if (more) break;
    names.push(name);
  }
  const last = names.at(-1);
  if (!more || last === undefined) return { names, headers: {} };
  return { names, headers: { Link: nextLink(path, { n: String(limit), last }) } };
}

/** GET /v2/<name>/referrers/<digest> (end-12a), and with `?artifactType=` (end-12b) */
export async function listReferrers(
  { registry, query, response, signal }: Exchange,
  { repository, digest }: { readonly repository: string; readonly digest: Digest },
): Promise<void> {
  const artifactType = query.get('artifactType');
  const after = query.get('last') ?? '';
  const found: Descriptor[] = [];
  try {
    const filter = artifactType === null ? {} : { artifactType };
    for await (const descriptor of registry.referrers(repository, digest, { signal, ...filter })) {
      if (descriptor.digest > after) found.push(descriptor);
    }
  } catch (error) {
    // "If the registry supports the referrers API, the registry MUST NOT return a 404": nothing there is an
    // empty list, and only a registry without the API answers 404.
    if (isLayercacheError(error, 'UNSUPPORTED')) {
      throw new RegistryError('UNSUPPORTED', error.message, {
        status: 404,
        reported: [{ code: 'UNSUPPORTED', message: error.message }],
      });
    }
    if (!isLayercacheError(error, 'NOT_FOUND')) throw error;
  }
  const page = referrersPage(found);
  const last = page.count < found.length ? found[page.count - 1]?.digest : undefined;
  sendBytes(response, 200, page.bytes, {
    'Content-Type': MediaType.index,
    ...(artifactType === null ? {} : { 'OCI-Filters-Applied': 'artifactType' }),
    ...(last === undefined
      ? {}
      : {
          Link: nextLink(`/v2/${repository}/referrers/${digest}`, {
            last,
            ...(artifactType === null ? {} : { artifactType }),
          }),
        }),
  });
}

/** As many descriptors, in the order of their digests, as fit into a manifest of the greatest size. */
function referrersPage(found: Descriptor[]): { bytes: Uint8Array; count: number } {
  found.sort((a, b) => (a.digest < b.digest ? -1 : 1));
  const manifests: string[] = [];
  let size = 200;
  for (const descriptor of found) {
    const text = JSON.stringify(descriptor);
    size += Buffer.byteLength(text) + 1;
    if (size > MAX_MANIFEST_SIZE && manifests.length > 0) break;
    manifests.push(text);
  }
  const text = `{"schemaVersion":2,"mediaType":"${MediaType.index}","manifests":[${manifests.join(',')}]}`;
  return { bytes: Buffer.from(text), count: manifests.length };
}

function nextLink(path: string, query: Readonly<Record<string, string>>): string {
  return `<${path}?${new URLSearchParams(query).toString()}>; rel="next"`;
}
