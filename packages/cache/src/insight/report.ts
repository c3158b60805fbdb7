import type { OciLayout } from '@layercache/layout';
import { takeCensus } from './census.js';
import { reportData } from './report-data.js';
import { reportPage } from './report-page.js';
import { statsOf, type CacheStats, type StatsOptions } from './stats.js';

export interface CacheReport {
  readonly stats: CacheStats;
  /** A whole HTML page. */
  readonly html: string;
}

/** Statistics, and a page that shows them: both of the same moment. */
export async function cacheReport(layout: OciLayout, options: StatsOptions = {}): Promise<CacheReport> {
  const census = await takeCensus(layout, options.signal);
  const stats = await statsOf(layout, census, options);
  return { stats, html: await reportPage(reportData(census, stats)) };
}
