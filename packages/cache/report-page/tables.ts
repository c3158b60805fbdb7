import { byId, html, type Child } from './elements.js';
import { shortDigest, showAge, showBytes, showCount } from './format.js';
import type { ReportData, ReportImage, ReportLayer } from './report-data.js';
import { matches } from './treemap.js';
import { imageName } from './treemap-tree.js';

interface Column<T> {
  readonly title: string;
  readonly numeric?: boolean;
  readonly cell: (item: T) => Child;
  /** What the rows are sorted by. Numbers: the largest first. */
  readonly key: (item: T) => number | string;
}

const SHOWN = 200;
/** Of the images that use a layer. */
const NAMED = 6;

/** A table whose rows can be sorted and searched. */
class Table<T> {
  readonly #place: HTMLElement;
  readonly #columns: readonly Column<T>[];
  readonly #text: (item: T) => string;
  #items: readonly T[];
  #sorted: Column<T> | undefined;
  #query = '';

  constructor(id: string, items: readonly T[], columns: readonly Column<T>[], text: (item: T) => string) {
    this.#place = byId(id);
    this.#items = items;
    this.#columns = columns;
    this.#text = text;
    this.#draw();
  }

  /** Returns how many rows are found. */
  search(query: string): number {
    this.#query = query;
    return this.#draw();
  }

  #draw(): number {
    const found = this.#items.filter((item) => matches({ text: this.#text(item) }, this.#query));
    const head = html('tr', {}, ...this.#columns.map((column) => this.#heading(column)));
    const rows = found.slice(0, SHOWN).map((item) =>
      html(
        'tr',
        {},
        ...this.#columns.map(({ numeric = false, cell }, position) => {
          const attributes: Record<string, string> = numeric ? { class: 'number' } : {};
          return position === 0
            ? html('th', { scope: 'row', ...attributes }, cell(item))
            : html('td', attributes, cell(item));
        }),
      ),
    );
    const table = html('table', {}, html('thead', {}, head), html('tbody', {}, ...rows));
    const more = found.length - rows.length;
    const note = more > 0 ? `and ${showCount(more, 'more row')}: search to find them` : '';
    const parts: Child[] = found.length === 0 ? ['nothing'] : note === '' ? [table] : [table, note];
    this.#place.replaceChildren(...parts);
    return found.length;
  }

  #heading(column: Column<T>): HTMLElement {
    const attributes: Record<string, string> = {
      scope: 'col',
      ...(column.numeric ? { class: 'number' } : {}),
    };
    if (column === this.#sorted) attributes['aria-sort'] = column.numeric ? 'descending' : 'ascending';
    const button = html('button', { type: 'button' }, column.title);
    button.addEventListener('click', () => {
      this.#sorted = column;
      this.#items = [...this.#items].sort((a, b) => compare(column.key(a), column.key(b)));
      this.#draw();
    });
    return html('th', attributes, button);
  }
}

function compare(a: number | string, b: number | string): number {
  if (typeof a === 'number' && typeof b === 'number') return b - a;
  return String(a) < String(b) ? -1 : 1;
}

/** The tables say in words all that the treemap shows. */
export function drawTables(data: ReportData): (query: string) => string {
  const images = new Table('images', data.images, imageColumns(data), (image) =>
    `${image.names.join(' ')} ${image.digest}`.toLowerCase(),
  );
  const layers = new Table('layers', [...data.layers].sort(byGain), layerColumns(data), layerText);
  return (query) =>
    `${showCount(images.search(query), 'image')}, ${showCount(layers.search(query), 'layer')}`;
}

function imageColumns(data: ReportData): Column<ReportImage>[] {
  const largest = Math.max(1, ...data.images.map(({ size }) => size));
  return [
    { title: 'Image', cell: (image) => nameCell(image), key: imageName },
    { title: 'Size', numeric: true, cell: ({ size }) => showBytes(size), key: ({ size }) => size },
    {
      title: 'Its own, and shared',
      cell: ({ unique, shared }) => splitBar(unique, shared, largest),
      key: ({ unique }) => unique,
    },
    { title: 'Shared', numeric: true, cell: ({ shared }) => showBytes(shared), key: ({ shared }) => shared },
    {
      title: 'Layers',
      numeric: true,
      cell: ({ layers }) => String(layers.length),
      key: ({ layers }) => layers.length,
    },
    {
      title: 'Last use',
      cell: ({ usedAt }) => showAge(usedAt, data.at),
      key: ({ usedAt }) => (usedAt === null ? 0 : Date.parse(usedAt)),
    },
  ];
}

function nameCell(image: ReportImage): HTMLElement {
  const names = html('span', { class: 'name', title: image.digest });
  names.append(imageName(image));
  if (image.pinned) names.append(' ', html('em', {}, 'pinned'));
  return names;
}

function splitBar(unique: number, shared: number, whole: number): HTMLElement {
  const own = html('span', { class: 'own' });
  const common = html('span', { class: 'shared' });
  own.style.width = `${(unique / whole) * 100}%`;
  common.style.width = `${(shared / whole) * 100}%`;
  const label = `${showBytes(unique)} its own, ${showBytes(shared)} shared`;
  return html('span', { class: 'bar', role: 'img', 'aria-label': label, title: label }, own, common);
}

function layerColumns(data: ReportData): Column<ReportLayer>[] {
  const users = new Map<ReportLayer, string[]>();
  for (const image of data.images) {
    for (const position of image.layers) {
      const layer = data.layers[position];
      if (layer !== undefined) users.set(layer, [...(users.get(layer) ?? []), imageName(image)]);
    }
  }
  const usersOf = (layer: ReportLayer): string => {
    const names = (users.get(layer) ?? []).slice(0, NAMED);
    const more = sharing(layer) - names.length;
    return [...names, ...(more > 0 ? [`and ${more.toLocaleString('en-US')} more`] : [])].join(', ');
  };
  return [
    { title: 'Layer', cell: (layer) => digestCell(layer), key: layerName },
    { title: 'Images', numeric: true, cell: (layer) => String(sharing(layer)), key: sharing },
    { title: 'Size', numeric: true, cell: (layer) => showBytes(sizeOf(layer)), key: sizeOf },
    { title: 'Saved', numeric: true, cell: (layer) => showBytes(gain(layer)), key: gain },
    {
      title: 'Forms',
      cell: ({ forms }) => forms.map(formText).join(', '),
      key: ({ forms }) => -forms.length,
    },
    { title: 'Used by', cell: (layer) => html('span', { class: 'name' }, usersOf(layer)), key: usersOf },
  ];
}

function digestCell(layer: ReportLayer): HTMLElement {
  const pair = layer.diffID === null ? layer.digest : `digest ${layer.digest}, diffID ${layer.diffID}`;
  return html('code', { title: pair }, shortDigest(layerName(layer)));
}

function layerName({ diffID, digest }: ReportLayer): string {
  return diffID ?? digest;
}

function layerText({ diffID, digest, forms }: ReportLayer): string {
  return `${digest} ${diffID ?? ''} ${forms.map((form) => form.digest).join(' ')}`.toLowerCase();
}

function formText({ kind, size }: ReportLayer['forms'][number]): string {
  return size > 0 ? `${kind} ${showBytes(size)}` : `${kind} not here`;
}

function sharing({ forms }: ReportLayer): number {
  return Math.max(0, ...forms.map(({ images }) => images));
}

function sizeOf({ forms }: ReportLayer): number {
  return forms.reduce((sum, { size }) => sum + size, 0);
}

/** What copies for each image would take more. */
function gain({ forms }: ReportLayer): number {
  return forms.reduce((sum, { size, images }) => sum + size * Math.max(0, images - 1), 0);
}

function byGain(a: ReportLayer, b: ReportLayer): number {
  return gain(b) - gain(a) || sizeOf(b) - sizeOf(a);
}
