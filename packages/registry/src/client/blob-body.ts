import { LayercacheError, isLayercacheError } from '@layercache/oci';
import { RegistryError } from '../registry-error.js';
import { headerOf } from './header.js';
import { pause, type RetryPolicy } from './retry.js';
import { shownUrl, type HttpResponse, type Transport } from './transport.js';

/** What an answer to a ranged GET says of itself. */
export interface BodyExtent {
  /** Offset in the blob of the body's first byte. */
  readonly offset: number;
  /** Bytes of this body, where announced. */
  readonly length: number | undefined;
  /** Bytes of the whole blob, where announced. */
  readonly size: number | undefined;
}

/**
 * @param wanted the first byte that was asked for
 * @throws RegistryError `REGISTRY` when the range that came is not the one asked for
 */
export function bodyExtent(response: HttpResponse, wanted: number): BodyExtent {
  const lengthHeader = headerOf(response.headers, 'content-length');
  const length = lengthHeader !== undefined && /^\d+$/.test(lengthHeader) ? Number(lengthHeader) : undefined;
  if (response.status === 200) return { offset: 0, length, size: length };
  const range = /^bytes (\d+)-(\d+)\/(\d+|\*)$/.exec(headerOf(response.headers, 'content-range') ?? '');
  if (range === null || Number(range[1]) !== wanted) {
    throw new RegistryError(
      'REGISTRY',
      `asked for bytes from ${wanted}, a registry answered "${headerOf(response.headers, 'content-range')?.slice(0, 100) ?? 'no Content-Range'}"`,
      {
        status: response.status,
      },
    );
  }
  return {
    offset: wanted,
    length: Number(range[2]) - wanted + 1,
    size: range[3] === '*' ? undefined : Number(range[3]),
  };
}

/**
 * The bytes of a blob from the first answer on. When the connection breaks, it goes on from where it stopped:
 * by a range, or by skipping what it has when the registry knows no ranges.
 */
export async function* resumingBody(
  first: HttpResponse,
  extent: BodyExtent,
  context: {
    readonly transport: Transport;
    readonly policy: RetryPolicy;
    readonly signal: AbortSignal | undefined;
    /** Asks for the rest, from an offset in the blob. */
    readonly reopen: (offset: number) => Promise<HttpResponse>;
  },
): AsyncGenerator<Uint8Array> {
  const end = extent.length === undefined ? undefined : extent.offset + extent.length;
  let position = extent.offset;
  let response = first;
  let skip = 0;
  for (let failures = 0; ;) {
    let broken: LayercacheError;
    try {
      for await (const chunk of context.transport.read(response, context.signal)) {
        const fresh = chunk.subarray(Math.min(skip, chunk.length));
        skip -= chunk.length - fresh.length;
        if (fresh.length === 0) continue;
        failures = 0;
        position += fresh.length;
        yield fresh;
      }
      if (end === undefined || position >= end) return;
      broken = new LayercacheError('NETWORK', `the connection was closed after ${position} of ${end} bytes`);
    } catch (error) {
      if (!isLayercacheError(error, 'NETWORK')) throw error;
      broken = error;
    }
    failures += 1;
    if (failures >= context.policy.attempts) throw broken;
    await pause(context.policy, failures, undefined, context.signal);
    response = await context.reopen(position);
    const rest = bodyExtent(response, position);
    if (extent.size !== undefined && rest.size !== undefined && rest.size !== extent.size) {
      response.body.destroy();
      throw new RegistryError(
        'REGISTRY',
        `${shownUrl(response.url)} had ${extent.size} bytes before the connection broke, and now has ${rest.size}`,
        { status: response.status },
      );
    }
    skip = position - rest.offset;
  }
}
