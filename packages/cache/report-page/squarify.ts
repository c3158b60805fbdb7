export interface Rectangle {
  readonly x: number;
  readonly y: number;
  readonly width: number;
  readonly height: number;
}

/**
 * Divides a rectangle into one for each weight, of areas in proportion and as square as rows allow (Bruls, Huizing,
 * van Wijk: Squarified Treemaps, 2000). Weights are in descending order; the rectangles are in the same order.
 */
export function squarify(weights: readonly number[], within: Rectangle): Rectangle[] {
  const placed: Rectangle[] = [];
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  const scale = total > 0 ? (within.width * within.height) / total : 0;
  let rest = within;
  let start = 0;
  while (start < weights.length) {
    const side = Math.min(rest.width, rest.height);
    let end = start;
    let area = 0;
    let worst = Infinity;
    while (end < weights.length) {
      const next = area + (weights[end] ?? 0) * scale;
      const ratio = worstRatio((weights[start] ?? 0) * scale, (weights[end] ?? 0) * scale, next, side);
      if (ratio > worst) break;
      worst = ratio;
      area = next;
      end++;
    }
    // Of weights that are all nothing, a row is as good as none.
    if (end === start) end = weights.length;
    rest = placeRow(weights.slice(start, end), scale, area, rest, placed);
    start = end;
  }
  return placed;
}

/** The ratio of the sides of the least square rectangle in a row. */
function worstRatio(largest: number, smallest: number, area: number, side: number): number {
  if (smallest <= 0 || side <= 0) return Infinity;
  const square = side * side;
  return Math.max((square * largest) / (area * area), (area * area) / (square * smallest));
}

/** Along the shorter side. Returns what is left. */
function placeRow(
  weights: readonly number[],
  scale: number,
  area: number,
  { x, y, width, height }: Rectangle,
  placed: Rectangle[],
): Rectangle {
  const upright = width >= height;
  const side = upright ? height : width;
  const thickness = side > 0 ? Math.min(area / side, upright ? width : height) : 0;
  let offset = 0;
  for (const weight of weights) {
    const length = area > 0 ? ((weight * scale) / area) * side : 0;
    placed.push(
      upright
        ? { x, y: y + offset, width: thickness, height: length }
        : { x: x + offset, y, width: length, height: thickness },
    );
    offset += length;
  }
  return upright
    ? { x: x + thickness, y, width: width - thickness, height }
    : { x, y: y + thickness, width, height: height - thickness };
}
