import { LayercacheError } from '@layercache/oci';
import type { LimitOptions, Limits, RoomMade, Shortage } from '@layercache/layout';

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
  return given.length === 0 ? undefined : { ...limits, makeRoom };
}
