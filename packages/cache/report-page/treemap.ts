import { byId, html, svg } from './elements.js';
import { showBytes } from './format.js';
import { squarify, type Rectangle } from './squarify.js';
import type { TreeNode } from './treemap-tree.js';

const HEADER = 20;
const GAP = 2;
/** Pixels; what is narrower is one rectangle, without what is in it. */
const SMALLEST = 5;
/** Of a character of the labels, in pixels, on average. */
const CHARACTER = 6.4;

/** The treemap: it can be looked into, searched, and gone through with the keyboard. */
export class Treemap {
  readonly #frame = byId('treemap');
  readonly #path = byId('treemap-path');
  readonly #detail = byId('treemap-detail');
  /** From the whole cache to what is looked into. */
  #trail: readonly TreeNode[];
  #query = '';
  #width = 0;
  #nodes = new Map<Element, TreeNode>();

  constructor(root: TreeNode) {
    this.#trail = [root];
    this.#draw();
    new ResizeObserver(() => {
      if (this.#frame.clientWidth !== this.#width) this.#draw();
    }).observe(this.#frame);
    this.#frame.addEventListener('click', (event) => {
      const tile = this.#tileAt(event.target);
      if (tile !== undefined) this.#open(tile);
    });
    for (const kind of ['pointerover', 'focusin']) {
      this.#frame.addEventListener(kind, (event) => {
        const node = this.#nodes.get(this.#tileAt(event.target) ?? this.#frame);
        if (node !== undefined) this.#detail.textContent = node.detail;
      });
    }
    this.#frame.addEventListener('keydown', (event) => {
      if (this.#press(event.key)) event.preventDefault();
    });
  }

  /** Makes all pale but what the words are found in. */
  search(query: string): void {
    this.#query = query;
    this.#draw();
  }

  #draw(): void {
    const width = this.#frame.clientWidth;
    const height = Math.round(Math.max(320, Math.min(width * 0.52, 620)));
    const node = this.#trail.at(-1);
    this.#width = width;
    if (node === undefined || width === 0) return;
    this.#nodes = new Map();
    const children = node.inside?.() ?? node.children;
    const chart = svg('svg', { width, height, viewBox: `0 0 ${width} ${height}`, role: 'tree' });
    chart.setAttribute(
      'aria-label',
      `Treemap of ${node.detail}. Arrow keys move, Enter looks into, Escape goes back.`,
    );
    this.#place(children, { x: 0, y: 0, width, height }, chart, 1, matches(node, this.#query));
    if (children.length === 0) chart.append(svg('text', { x: 12, y: 28, class: 'label' }, 'nothing here'));
    this.#frame.replaceChildren(chart);
    chart.querySelector('[role=treeitem]')?.setAttribute('tabindex', '0');
    this.#drawPath();
  }

  #place(
    nodes: readonly TreeNode[],
    within: Rectangle,
    parent: SVGElement,
    level: number,
    found: boolean,
  ): void {
    const rectangles = squarify(
      nodes.map(({ size }) => size),
      within,
    );
    nodes.forEach((node, position) => {
      const rectangle = rectangles[position];
      if (rectangle === undefined || rectangle.width < 1 || rectangle.height < 1) return;
      const matched = found || matches(node, this.#query);
      const tile = svg('g', {
        role: 'treeitem',
        tabindex: -1,
        'aria-level': level,
        'aria-label': node.detail,
        class:
          matched || node.children.some((child) => deeplyMatches(child, this.#query)) ? 'tile' : 'tile pale',
      });
      this.#nodes.set(tile, node);
      const { x, y, width, height } = shrunk(rectangle, GAP / 2);
      const box = svg('rect', { x, y, width, height, rx: level === 1 ? 4 : 2 });
      box.setAttribute('class', node.kind === undefined ? `group level-${Math.min(level, 2)}` : 'leaf');
      if (node.kind !== undefined) box.dataset.kind = node.kind;
      tile.append(box);
      const header = width > 44 && height > HEADER + 14 ? HEADER : 0;
      const room = Math.floor((width - 12) / CHARACTER);
      if (height > 15 && room > 3 && (node.kind !== undefined || header > 0)) {
        const label = svg('text', { x: x + 6, y: y + 14, class: 'label' }, shortened(node, room));
        tile.append(label);
      }
      if (node.children.length > 0 && width > SMALLEST && height > SMALLEST) {
        const inner = { x: x + GAP, y: y + header, width: width - 2 * GAP, height: height - header - GAP };
        if (inner.width > SMALLEST && inner.height > SMALLEST) {
          const group = svg('g', { role: 'group' });
          this.#place(node.children, inner, group, level + 1, matched);
          tile.append(group);
        }
      }
      parent.append(tile);
    });
  }

  #drawPath(): void {
    this.#path.replaceChildren(
      ...this.#trail.map((node, position) => {
        const last = position === this.#trail.length - 1;
        const text = node.label;
        const item = html('li');
        if (last) item.append(html('span', { 'aria-current': 'true' }, text));
        else {
          const button = html('button', { type: 'button', class: 'link' }, text);
          button.addEventListener('click', () => {
            this.#go(this.#trail.slice(0, position + 1));
          });
          item.append(button);
        }
        return item;
      }),
    );
  }

  #go(trail: readonly TreeNode[]): void {
    this.#trail = trail;
    this.#draw();
    this.#detail.textContent = trail.at(-1)?.detail ?? '';
  }

  /** Looks into a group; of a leaf, into the group that it is in. */
  #open(tile: Element): void {
    const way: TreeNode[] = [];
    for (let each: Element | undefined = tile; each !== undefined; each = this.#tileAt(each.parentElement)) {
      const node = this.#nodes.get(each);
      if (node !== undefined && node.children.length > 0) way.unshift(node);
    }
    const [next] = way;
    if (next !== undefined) this.#go([...this.#trail, next]);
  }

  #press(key: string): boolean {
    const tile = this.#tileAt(document.activeElement);
    if (key === 'Escape' && this.#trail.length > 1) {
      this.#go(this.#trail.slice(0, -1));
      this.#focus(this.#frame.querySelector('[role=treeitem]'));
      return true;
    }
    if (tile === undefined) return false;
    if (key === 'Enter' || key === ' ') {
      this.#open(tile);
      this.#focus(this.#frame.querySelector('[role=treeitem]'));
      return true;
    }
    const next = {
      ArrowRight: () => tile.nextElementSibling,
      ArrowLeft: () => tile.previousElementSibling,
      ArrowDown: () => tile.querySelector('[role=treeitem]'),
      ArrowUp: () => this.#tileAt(tile.parentElement) ?? null,
    }[key];
    if (next === undefined) return false;
    this.#focus(next());
    return true;
  }

  #focus(tile: Element | null): void {
    if (!(tile instanceof SVGElement) || tile.getAttribute('role') !== 'treeitem') return;
    for (const each of this.#frame.querySelectorAll('[tabindex="0"]')) each.setAttribute('tabindex', '-1');
    tile.setAttribute('tabindex', '0');
    tile.focus();
  }

  #tileAt(target: EventTarget | null): Element | undefined {
    return target instanceof Element ? (target.closest('[role=treeitem]') ?? undefined) : undefined;
  }
}

export function matches(node: { readonly text: string }, query: string): boolean {
  return query === '' || node.text.includes(query);
}

function deeplyMatches(node: TreeNode, query: string): boolean {
  return matches(node, query) || node.children.some((child) => deeplyMatches(child, query));
}

function shrunk({ x, y, width, height }: Rectangle, by: number): Rectangle {
  return {
    x: x + by,
    y: y + by,
    width: Math.max(0.5, width - 2 * by),
    height: Math.max(0.5, height - 2 * by),
  };
}

/** With its size where there is room for both. The end of a path says more than its beginning. */
function shortened({ label, size }: TreeNode, room: number): string {
  const whole = `${label}  ${showBytes(size)}`;
  if (whole.length <= room) return whole;
  if (label.length <= room) return label;
  return label.includes('/') ? `…${label.slice(label.length - room + 1)}` : `${label.slice(0, room - 1)}…`;
}
