import { setTimeout as sleep } from 'node:timers/promises';
import { abortedError } from '@layercache/oci';

export interface RetryOptions {
  /** How often something is tried in all. Default 4. */
  readonly attempts?: number;
  /** Milliseconds before the second try; doubled before each further one. Default 250. */
  readonly delay?: number;
  /** Milliseconds that one pause may last at most, also when a registry asks for more. Default 60,000. */
  readonly maxDelay?: number;
}

export type RetryPolicy = Required<RetryOptions>;

export function retryPolicy(options: RetryOptions = {}): RetryPolicy {
  return {
    attempts: options.attempts ?? 4,
    delay: options.delay ?? 250,
    maxDelay: options.maxDelay ?? 60_000,
  };
}

/** Statuses that may be different next time. */
export function isTransientStatus(status: number): boolean {
  return (
    status === 408 || status === 429 || status === 500 || status === 502 || status === 503 || status === 504
  );
}

/** `Retry-After` in milliseconds (RFC 9110, section 10.2.3): seconds or a date. */
export function retryAfter(header: string | undefined, now = Date.now()): number | undefined {
  if (header === undefined) return undefined;
  if (/^\d+$/.test(header.trim())) return Number(header) * 1000;
  const date = Date.parse(header);
  return Number.isNaN(date) ? undefined : Math.max(0, date - now);
}

/** Waits before try number `attempt + 1`: as long as asked for, else longer each time and not in step with others. */
export async function pause(
  policy: RetryPolicy,
  attempt: number,
  asked: number | undefined,
  signal: AbortSignal | undefined,
): Promise<void> {
  const backoff = policy.delay * 2 ** (attempt - 1) * (0.75 + Math.random() / 2);
  try {
    await sleep(
      Math.min(asked ?? backoff, policy.maxDelay),
      undefined,
      signal === undefined ? {} : { signal },
    );
  } catch {
    throw abortedError(signal);
  }
}
