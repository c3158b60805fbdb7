import {
  CacheFullError,
  IntegrityError,
  isLayercacheError,
  type LayercacheError,
  type ErrorCode,
} from '@layercache/oci';
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

const FAILED = 'the registry failed; its log says more';
/** Errors of another registry that are passed on in one answer. */
const MOST_REPORTED = 20;
/** Characters of a message that are sent. */
const MOST_CHARACTERS = 1000;
/** A path from the root, in quotes or up to what may end it: it may have spaces. A URL's path follows no space. */
const LOCAL_PATH =
  /(^|[\s(=])(?:(['"])(?:\/|[a-z]:\\)[^'"]*\2|(?:\/|[a-z]:\\)[^'";,()]*?(?=\s\(|:\s|['";,)]|$))/gi;
/** Failures of this machine, which no client can do anything about. */
const INTERNAL: ReadonlySet<ErrorCode> = new Set(['STORAGE', 'LOCK_TIMEOUT', 'LAYOUT_INVALID']);

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
  if (!isLayercacheError(error)) return answer(500, 'UNKNOWN', FAILED);
  if (error instanceof RegistryError && error.status !== undefined && error.reported.length > 0) {
    // Another registry's failure is not ours: to the client we are a gateway.
    const isRefusal = error.status >= 400 && error.status < 500;
    const status = isRefusal ? error.status : 502;
    const { retryAfter } = error;
    return {
      status,
      ...(retryAfter === undefined ? {} : { retryAfter: Math.ceil(retryAfter / 1000) }),
      errors: error.reported.slice(0, MOST_REPORTED).map((each) => passedOn(each, error)),
    };
  }
  if (error.code === 'CACHE_FULL') return fullAnswer(error);
  if (isDiskFull(error.cause)) return answer(507, 'DENIED', 'the disk of the registry is full');
  if (INTERNAL.has(error.code)) return answer(500, 'UNKNOWN', FAILED);
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

/** 413 where a client need not try again, 507 where room may come (RFC 4918, section 11.5). */
function fullAnswer(error: LayercacheError): ErrorAnswer {
  const full = error instanceof CacheFullError ? error : undefined;
  if (full?.neverFits === true) {
    return answer(
      413,
      'SIZE_INVALID',
      `${full.bytes} bytes are more than the limit of the cache has room for`,
    );
  }
  const what = full === undefined ? 'this does' : `${full.bytes} bytes more do`;
  return answer(507, 'DENIED', `the cache is full: ${what} not fit, whatever is evicted`);
}

function isDiskFull(cause: unknown): boolean {
  return cause instanceof Error && 'code' in cause && (cause.code === 'ENOSPC' || cause.code === 'EDQUOT');
}

/** An error of another registry, as far as it is fit to be passed on. */
function passedOn({ code, message, detail }: ReportedError, error: RegistryError): ReportedError {
  return {
    code: code.slice(0, 100),
    message: (message ?? withoutPaths(error.message)).slice(0, MOST_CHARACTERS),
    ...(isSmall(detail) ? { detail } : {}),
  };
}

/** A detail can be any JSON: also such that is too deep to be written again. */
function isSmall(detail: unknown): boolean {
  try {
    return detail !== undefined && JSON.stringify(detail).length <= MOST_CHARACTERS;
  } catch {
    return false;
  }
}

function answer(status: number, code: string, message: string): ErrorAnswer {
  return { status, errors: [{ code, message: withoutPaths(message).slice(0, MOST_CHARACTERS) }] };
}

/** Files of this machine are nobody else's business, and many messages name them. */
function withoutPaths(message: string): string {
  return message.replace(LOCAL_PATH, '$1…');
}
