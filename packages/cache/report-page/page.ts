import { drawCharts } from './charts.js';
import { byId, html } from './elements.js';
import { showBytes, showShare } from './format.js';
import type { ReportData } from './report-data.js';
import { drawTables } from './tables.js';
import { Treemap } from './treemap.js';
import { cacheTree } from './treemap-tree.js';

function drawTotals({ totals, at, activity }: ReportData): void {
  const layers = totals.proven + totals.claimed + totals.unpaired;
  const figures: (readonly [figure: string, label: string, detail: string])[] = [
    [showBytes(totals.disk), 'on disk', `${totals.blobs.toLocaleString('en-US')} blobs`],
    [totals.images.toLocaleString('en-US'), 'images', `${showBytes(totals.logical)} if nothing were shared`],
    [
      `${totals.ratio.toFixed(2)}×`,
      'deduplication',
      `${showBytes(totals.logical - totals.unique)} saved by sharing`,
    ],
    [showBytes(totals.reclaimable), 'reclaimable', 'can be made again, or nothing leads to it'],
    [
      layers.toLocaleString('en-US'),
      'layers',
      `${totals.proven} proven, ${totals.claimed} claimed, ${totals.unpaired} with one name`,
    ],
  ];
  const asked = activity.hits + activity.misses;
  if (asked > 0) {
    const evictions =
      activity.evictions === 0 ? '' : `, ${activity.evictions.toLocaleString('en-US')} evictions`;
    const lookups = `${asked.toLocaleString('en-US')} lookups`;
    figures.push([showShare(activity.hits, asked), 'hit rate', `${lookups}${evictions}`]);
  }
  byId('totals').replaceChildren(
    ...figures.map(([figure, label, detail]) =>
      html(
        'div',
        { class: 'figure' },
        html('dt', {}, label),
        html('dd', {}, html('strong', {}, figure), html('span', {}, detail)),
      ),
    ),
  );
  byId('at').textContent = `as it was on ${new Date(at).toLocaleString()}`;
}

/** Follows the system until somebody chooses. */
function offerTheme(): void {
  const button = byId('theme');
  const system = matchMedia('(prefers-color-scheme: dark)');
  const root = document.documentElement;
  const isDark = (): boolean => (root.dataset.theme ?? (system.matches ? 'dark' : 'light')) === 'dark';
  const label = (): void => {
    button.textContent = isDark() ? 'Light' : 'Dark';
    button.setAttribute('aria-label', `switch to ${isDark() ? 'light' : 'dark'} colours`);
  };
  button.addEventListener('click', () => {
    root.dataset.theme = isDark() ? 'light' : 'dark';
    label();
  });
  system.addEventListener('change', label);
  label();
}

function offerSearch(search: (query: string) => string): void {
  const input = byId('search');
  if (!(input instanceof HTMLInputElement)) return;
  input.addEventListener('input', () => {
    const query = input.value.trim().toLowerCase();
    const found = search(query);
    byId('found').textContent = query === '' ? '' : `found: ${found}`;
  });
  document.addEventListener('keydown', (event) => {
    if (event.key !== '/' || document.activeElement === input) return;
    event.preventDefault();
    input.focus();
  });
}

const data = JSON.parse(byId('data').textContent) as ReportData;
drawTotals(data);
drawCharts(data);
const treemap = new Treemap(cacheTree(data));
const searchTables = drawTables(data);
offerSearch((query) => {
  treemap.search(query);
  return searchTables(query);
});
offerTheme();
