import { byId, html, type Child } from './elements.js';
import { showBytes, showCount, showDuration, showMilliseconds, showShare } from './format.js';
import type { ReportActivity, ReportData } from './report-data.js';

interface Bar {
  readonly label: string;
  readonly value: number;
  readonly text: string;
  readonly kind?: string;
}

/** A chart that is a table: who cannot see the bars reads the numbers beside them. */
function barChart(place: HTMLElement, caption: string, bars: readonly Bar[]): void {
  const largest = Math.max(1, ...bars.map(({ value }) => value));
  const rows = bars.map(({ label, value, text, kind = 'plain' }) => {
    const bar = html('span', { class: value > 0 ? 'fill' : 'nothing', 'data-kind': kind });
    bar.style.width = `${(value / largest) * 100}%`;
    return html(
      'tr',
      {},
      html('th', { scope: 'row' }, label),
      html('td', { class: 'track', 'aria-hidden': 'true' }, bar),
      html('td', { class: 'number' }, text),
    );
  });
  place.replaceChildren(
    html('table', { class: 'bars' }, html('caption', {}, caption), html('tbody', {}, ...rows)),
  );
}

export function drawCharts(data: ReportData): void {
  barChart(
    byId('kinds'),
    'Bytes on disk by kind of blob',
    data.kinds
      .filter(({ blobs }) => blobs > 0)
      .map(({ kind, blobs, size, reclaimable }) => ({
        label: kind,
        kind,
        value: size,
        text:
          `${showBytes(size)} in ${showCount(blobs, 'blob')}` +
          (reclaimable > 0 ? `, ${showBytes(reclaimable)} reclaimable` : ''),
      })),
  );
  barChart(
    byId('ages'),
    'Bytes on disk by time since their last use',
    data.ages.map(({ until, blobs, size }, position) => ({
      label: ageLabel(data.ages[position - 1]?.until ?? null, until),
      value: size,
      text: `${showBytes(size)} in ${showCount(blobs, 'blob')}`,
    })),
  );
  drawActivity(data.activity, data.at);
}

function ageLabel(from: number | null, until: number | null): string {
  if (until === null) return `${showDuration(from ?? 0)} and more`;
  return `up to ${showDuration(until)}`;
}

function drawActivity(activity: ReportActivity, at: string): void {
  const { hits, misses, since, operations } = activity;
  const asked = hits + misses;
  const span = showDuration(Date.parse(at) - Date.parse(since));
  const rate = asked === 0 ? 'Hit rate: nothing was asked for' : `Hit rate ${showShare(hits, asked)}`;
  barChart(byId('hits'), `${rate}, counted for ${span}`, [
    {
      label: 'found here',
      value: hits,
      text: `${hits.toLocaleString('en-US')}, ${showShare(hits, asked)}`,
      kind: 'hit',
    },
    {
      label: 'not here',
      value: misses,
      text: `${misses.toLocaleString('en-US')}, ${showShare(misses, asked)}`,
      kind: 'miss',
    },
  ]);
  const traffic = [
    ['handed out', activity.bytesServed, 'hit'],
    ['not fetched again', activity.bytesSaved, 'hit'],
    ['downloaded', activity.bytesDownloaded, 'miss'],
  ] as const;
  barChart(
    byId('traffic'),
    'Bytes handed out, and from registries',
    traffic.map(([label, value, kind]) => ({ label, value, kind, text: showBytes(value) })),
  );
  if (operations.length === 0) {
    byId('operations').replaceChildren('nothing was done yet');
    return;
  }
  const titles = ['Operation', 'Count', 'Errors', 'p50', 'p95', 'p99'];
  const cells = operations.map(({ name, count, errors, p50, p95, p99 }) => [
    name,
    String(count),
    String(errors),
    ...[p50, p95, p99].map(showMilliseconds),
  ]);
  const row = (texts: readonly string[], tag: 'th' | 'td'): HTMLElement =>
    html(
      'tr',
      {},
      ...texts.map((text, position): Child => {
        const scope = tag === 'th' ? { scope: 'col' } : {};
        if (position === 0) return html('th', { scope: tag === 'th' ? 'col' : 'row' }, text);
        return html(tag, { class: 'number', ...scope }, text);
      }),
    );
  byId('operations').replaceChildren(
    html(
      'table',
      {},
      html('thead', {}, row(titles, 'th')),
      html('tbody', {}, ...cells.map((texts) => row(texts, 'td'))),
    ),
  );
}
