import { isLayercacheError } from '@layercache/oci';
import { RegistryError } from '@layercache/registry';

/**
 * An upstream's failure as the mirror's clients are to see it. A challenge of the upstream is none of theirs: they
 * have no way to answer it through the mirror, so it is a refusal. That it wants fewer requests is passed on, with the
 * time it asks for.
 */
export function upstreamError(error: unknown, upstream: string): unknown {
  if (isLayercacheError(error, 'UNAUTHORIZED')) {
    const message = `${upstream} refuses this to the mirror: ${error.message}`;
    return new RegistryError('UNAUTHORIZED', message, {
      status: 403,
      reported: [{ code: 'DENIED', message }],
      cause: error,
    });
  }
  if (error instanceof RegistryError && error.status === 429) {
    const message = `${upstream} asks the mirror for fewer requests: ${error.message}`;
    return new RegistryError('REGISTRY', message, {
      status: 429,
      reported: [{ code: 'TOOMANYREQUESTS', message }],
      retryAfter: error.retryAfter,
      cause: error,
    });
  }
  return error;
}
