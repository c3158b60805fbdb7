import { LayercacheError } from '@layercache/oci';
import type { LimitOptions, Limits, RoomMade, Shortage } from '@layercache/layout';

/** Bytes. Less would not hold an empty cache and the commit that changes it, and would empty one that is full. */
const SMALLEST = 128 * 1024;

/** @throws LayercacheError `USAGE` for a limit that is none */
export function checkedLimits(
  limits: Limits | undefined,
  makeRoom: (shortage: Shortage) => Promise<RoomMade>,
): LimitOptions | undefined {
  if (limits === undefined) return undefined;
  const given = Object.entries(limits).filter(([, limit]) => limit !== undefined);
  for (const [name, limit] of given) {
    if (!Number.isSafeInteger(limit) || limit < 0)
      throw new LayercacheError(
        'USAGE',
        `limits.${name} is ${String(limit)}: expected a whole number, not below 0`,
      );
  }
  if (limits.maxSize !== undefined && limits.maxSize < SMALLEST) {
    throw new LayercacheError(
      'USAGE',
      `limits.maxSize is ${limits.maxSize} bytes: a cache needs ${SMALLEST} to hold anything; was the unit forgotten?`,
    );
  }
  return given.length === 0 ? undefined : { ...limits, makeRoom };
}
