import { IntegrityError, isLayercacheError, type ErrorCode } from '@layercache/oci';
import { RegistryError, type ReportedError } from '../registry-error.js';
import type { RouteKind } from './route.js';

/** An error as it goes to the client (distribution specification, "Error Codes"). */
export interface ErrorAnswer {
  readonly status: number;
  readonly errors: readonly ReportedError[];
  /** Seconds. */
  readonly retryAfter?: number;
}

/** What is unknown when the registry says NOT_FOUND. */
const UNKNOWN: Readonly<Record<RouteKind, string>> = {
  version: 'NAME_UNKNOWN',
  catalog: 'NAME_UNKNOWN',
  tags: 'NAME_UNKNOWN',
  referrers: 'NAME_UNKNOWN',
  blob: 'BLOB_UNKNOWN',
  uploads: 'BLOB_UNKNOWN',
  upload: 'BLOB_UPLOAD_UNKNOWN',
  manifest: 'MANIFEST_UNKNOWN',
};

/** The same for every endpoint. What is not here is the server's own trouble: 500. */
const ANSWERS: ReadonlyMap<ErrorCode, readonly [status: number, code: string]> = new Map([
  ['DIGEST_INVALID', [400, 'DIGEST_INVALID']],
  ['REFERENCE_INVALID', [400, 'NAME_INVALID']],
  ['USAGE', [400, 'NAME_INVALID']],
  ['UNAUTHORIZED', [401, 'UNAUTHORIZED']],
  ['UNSUPPORTED', [405, 'UNSUPPORTED']],
  ['NETWORK', [502, 'UNKNOWN']],
  ['ABORTED', [503, 'UNKNOWN']],
]);

/** @param writing whether the request brought bytes; then bytes that are wrong are the client's, else they are ours */
export function errorAnswer(error: unknown, kind: RouteKind, writing: boolean): ErrorAnswer {
  if (!isLayercacheError(error)) {
    return answer(500, 'UNKNOWN', 'the registry failed; its log says more');
  }
  if (error instanceof RegistryError && error.status !== undefined && error.reported.length > 0) {
    // Another registry's failure is not ours: to the client we are a gateway.
    const status = error.status >= 500 ? 502 : error.status;
    const { retryAfter } = error;
    return {
      status,
      ...(retryAfter === undefined ? {} : { retryAfter: Math.ceil(retryAfter / 1000) }),
      errors: error.reported.map((each) => ({ ...each, message: each.message ?? error.message })),
    };
  }
  if (error.code === 'NOT_FOUND') {
    if (kind === 'manifest' && writing) return answer(400, 'MANIFEST_BLOB_UNKNOWN', error.message);
    return answer(404, UNKNOWN[kind], error.message);
  }
  if (writing && error.code === 'DIGEST_MISMATCH') {
    const isSize = error instanceof IntegrityError && typeof error.expected === 'number';
    return answer(400, isSize ? 'SIZE_INVALID' : 'DIGEST_INVALID', error.message);
  }
  if (writing && error.code === 'DOCUMENT_INVALID') return answer(400, 'MANIFEST_INVALID', error.message);
  if (error.code === 'REGISTRY') return answer(502, 'UNKNOWN', error.message);
  const [status, code] = ANSWERS.get(error.code) ?? [500, 'UNKNOWN'];
  return answer(status, code, error.message);
}

function answer(status: number, code: string, message: string): ErrorAnswer {
  return { status, errors: [{ code, message }] };
}
