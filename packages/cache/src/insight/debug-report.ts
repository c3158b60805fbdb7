import { readFileSync } from 'node:fs';
import { statfs } from 'node:fs/promises';
import { arch, availableParallelism, freemem, platform, release, totalmem } from 'node:os';
import { indexStats, type VerifyReport } from '@layercache/layout';
import type { Metrics } from '../metrics/metrics.js';
import { ownIdentity, redacted, type Identity } from './redact.js';
import { cacheStats, type StatsSubject } from './stats.js';

export interface DebugReportOptions {
  /** Whether every byte is hashed, which takes as long as the cache is large. Default: true. */
  readonly verify?: boolean | undefined;
  readonly signal?: AbortSignal | undefined;
  /** Who is redacted. Default: this user on this machine. */
  readonly identity?: Identity | undefined;
}

/** What the cache that is reported on gives to its report. */
export interface DebugSubject extends StatsSubject {
  /** How it was opened. */
  readonly options: object;
  readonly metrics: Metrics;
  readonly verify: () => Promise<VerifyReport>;
}

const { version } = JSON.parse(readFileSync(new URL('../../../package.json', import.meta.url), 'utf8')) as {
  version: string;
};

/**
 * All that a bug report should carry, as one JSON document: versions, platform, options, statistics, what verifying
 * found, the state of index, map and journal, metrics. No environment, no content, no annotations; see
 * {@link redacted} for what is taken out of what remains.
 */
export async function debugReport(subject: DebugSubject, options: DebugReportOptions = {}): Promise<unknown> {
  const { layout } = subject;
  const report = {
    report: 'layercache debug 1',
    at: new Date(),
    versions: { layercache: version, node: process.versions.node, zlib: process.versions.zlib },
    platform: {
      os: platform(),
      release: release(),
      arch: arch(),
      cpus: availableParallelism(),
      memory: { total: totalmem(), free: freemem() },
      disk: await diskSpace(layout.dir),
    },
    options: described(subject.options),
    index: indexStats(layout),
    temporaryFiles: layout.temporaryFiles().length,
    stats: await cacheStats(subject, { top: 20, signal: options.signal }),
    metrics: { thisRun: subject.metrics.snapshot(), allRuns: subject.metrics.total() },
    verify: options.verify === false ? 'not asked for' : await subject.verify(),
  };
  return redacted(report, options.identity ?? ownIdentity());
}

/** Bytes. */
async function diskSpace(dir: string): Promise<{ total: number; free: number }> {
  const { bsize, blocks, bavail } = await statfs(dir);
  return { total: bsize * blocks, free: bsize * bavail };
}

/** What is data stays; of all else, a logger or a client that may know anything, only that it was given. */
function described(value: unknown): unknown {
  if (typeof value === 'function') return 'given';
  if (typeof value !== 'object' || value === null) return value;
  if (Array.isArray(value)) return value.map(described);
  if (Object.getPrototypeOf(value) !== Object.prototype) return 'given';
  return Object.fromEntries(Object.entries(value).map(([name, field]) => [name, described(field)]));
}
