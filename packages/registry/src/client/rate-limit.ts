import type { IncomingHttpHeaders } from 'node:http';
import { headerOf } from './header.js';

/** What a registry says of its pull limit (Docker Hub's `RateLimit-*` headers). */
export interface RateLimit {
  /** Pulls in a window. */
  readonly limit: number | undefined;
  /** Pulls that are left. */
  readonly remaining: number;
  /** Seconds. */
  readonly window: number | undefined;
}

/** `76;w=21600`: 76 in a window of six hours. */
const VALUE = /^\s*(\d{1,15})\s*(?:;\s*w\s*=\s*(\d{1,15})\s*)?/;

/** Undefined where an answer says nothing of it. */
export function rateLimitOf(headers: IncomingHttpHeaders): RateLimit | undefined {
  const [, remaining, window] = VALUE.exec(headerOf(headers, 'ratelimit-remaining') ?? '') ?? [];
  if (remaining === undefined) return undefined;
  const [, limit, limitWindow] = VALUE.exec(headerOf(headers, 'ratelimit-limit') ?? '') ?? [];
  return { limit: numberOf(limit), remaining: Number(remaining), window: numberOf(window ?? limitWindow) };
}

function numberOf(digits: string | undefined): number | undefined {
  return digits === undefined ? undefined : Number(digits);
}
