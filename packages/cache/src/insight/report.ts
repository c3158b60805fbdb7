import type { ReportActivity } from '../../report-page/report-data.js';
import { OPERATIONS, type MetricsSnapshot } from '../metrics/tally.js';
import { takeCensus } from './census.js';
import { reportData } from './report-data.js';
import { reportPage } from './report-page.js';
import { statsOf, type CacheStats, type StatsOptions, type StatsSubject } from './stats.js';

export interface CacheReport {
  readonly stats: CacheStats;
  /** A whole HTML page. */
  readonly html: string;
}

/** The cache that is shown. */
export interface ReportSubject extends StatsSubject {
  readonly metrics: () => MetricsSnapshot;
}

/** Statistics, and a page that shows them: both of the same moment. */
export async function cacheReport(subject: ReportSubject, options: StatsOptions = {}): Promise<CacheReport> {
  const census = await takeCensus(subject.layout, options.signal);
  const stats = await statsOf(subject, census, options);
  return { stats, html: await reportPage(reportData(census, stats, activity(subject.metrics()))) };
}

function activity({ since, counters, operations }: MetricsSnapshot): ReportActivity {
  const { hits, misses, bytesServed, bytesDownloaded, bytesSaved, evictions } = counters;
  return {
    since: since.toISOString(),
    ...{ hits, misses, bytesServed, bytesDownloaded, bytesSaved, evictions },
    operations: OPERATIONS.flatMap((name) => {
      const { count, errors, latency } = operations[name];
      const { p50, p95, p99 } = latency;
      return count > 0 ? [{ name, count, errors, p50, p95, p99 }] : [];
    }),
  };
}
