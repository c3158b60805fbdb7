import { shortDigest, showBytes, showCount } from './format.js';
import type { ReportData, ReportForm, ReportImage, ReportLayer } from './report-data.js';

/** A rectangle of the treemap, and those in it. */
export interface TreeNode {
  readonly label: string;
  /** All that is known of it, in a sentence. */
  readonly detail: string;
  readonly size: number;
  /** Of a leaf: what it is coloured by. */
  readonly kind?: string;
  /** What a search looks into, in lower case. */
  readonly text: string;
  readonly children: readonly TreeNode[];
  /** What is shown when it is looked into: what it shares as well. */
  readonly inside?: () => readonly TreeNode[];
}

/** Each byte of the cache's blobs once: what only one image has in that image, what several have beside them. */
export function cacheTree(data: ReportData): TreeNode {
  const shared = data.layers.flatMap((layer) => layerNode(layer, ({ images }) => images > 1));
  if (data.sharedOther > 0) shared.push(leaf('manifests and configs', 'manifest', data.sharedOther));
  const groups = [
    ...data.images.map((image) => imageNode(image, data)),
    group('shared by several images', 'what several images need', shared),
    group(
      'no image',
      'what no image needs',
      data.rest.map(({ kind, size }) => leaf(kind, kind, size)),
    ),
  ];
  if (data.more.images > 0) {
    groups.push(leaf(showCount(data.more.images, 'smaller image'), 'other', data.more.unique));
  }
  return group('cache', 'the whole cache', groups);
}

export function imageName({ names, digest }: ReportImage): string {
  return names.length === 0 ? shortDigest(digest) : names.join(', ');
}

function imageNode(image: ReportImage, data: ReportData): TreeNode {
  const layers = image.layers.flatMap((position) => data.layers[position] ?? []);
  const documents = (size: number): TreeNode[] =>
    size > 0 ? [leaf('manifest and config', 'manifest', size)] : [];
  const own = [
    ...layers.flatMap((layer) => layerNode(layer, ({ images }) => images === 1)),
    ...documents(image.documents),
  ];
  const name = imageName(image);
  const detail = `image ${name}: ${showBytes(image.size)}, of which ${showBytes(image.shared)} shared`;
  const text = `${image.names.join(' ')} ${image.digest}`.toLowerCase();
  return {
    ...group(name, detail, own),
    text,
    inside: () =>
      bySize([...layers.flatMap((layer) => layerNode(layer, () => true)), ...documents(image.documents)]),
  };
}

/** Of the forms that are here and wanted; none: no node. */
function layerNode(layer: ReportLayer, wanted: (form: ReportForm) => boolean): TreeNode[] {
  const forms = layer.forms.filter((form) => form.size > 0 && wanted(form));
  if (forms.length === 0) return [];
  const name = layer.diffID ?? layer.digest;
  const children = forms.map((form) => ({
    label: form.kind,
    detail:
      `${form.kind} ${form.digest} of layer ${name}: ${showBytes(form.size)}` +
      (form.images > 1 ? `, shared by ${form.images} images` : ''),
    size: form.size,
    kind: form.kind,
    text: form.digest.toLowerCase(),
    children: [],
  }));
  const most = Math.max(...forms.map((form) => form.images));
  const layerGroup = group(shortDigest(name), `layer ${name}`, children);
  const sharing = most > 1 ? `, shared by ${most} images` : '';
  return [
    {
      ...layerGroup,
      detail: `layer ${name}: ${showBytes(layerGroup.size)} in ${showCount(forms.length, 'form')}${sharing}`,
      text: `${layer.digest} ${layer.diffID ?? ''}`.toLowerCase(),
    },
  ];
}

function leaf(label: string, kind: string, size: number): TreeNode {
  return {
    label,
    detail: `${label}: ${showBytes(size)}`,
    size,
    kind,
    text: label.toLowerCase(),
    children: [],
  };
}

function group(label: string, detail: string, children: readonly TreeNode[]): TreeNode {
  const size = children.reduce((sum, child) => sum + child.size, 0);
  return { label, detail, size, text: label.toLowerCase(), children: bySize(children) };
}

function bySize(nodes: readonly TreeNode[]): TreeNode[] {
  return nodes.filter(({ size }) => size > 0).sort((a, b) => b.size - a.size);
}
