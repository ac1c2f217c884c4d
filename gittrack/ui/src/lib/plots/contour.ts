// A surface through scattered points, and the lines of one height on it.

/** Places are fractions of the axes. */
export interface Point {
  x: number;
  y: number;
  value: number;
}

export interface Grid {
  across: number;
  up: number;
  /** Line by line from below, `across` to a line; the first and the last are at the ends of the axes. */
  values: Float64Array;
}

/** At each place of a grid the mean of all points, by the inverse of their squared distance (Shepard, 1968). */
export function surface(points: Point[], across: number, up: number): Grid {
  const values = new Float64Array(across * up);
  for (let line = 0; line < up; line += 1) {
    for (let column = 0; column < across; column += 1) {
      let [sum, weights] = [0, 0];
      for (const { x, y, value } of points) {
        const weight = 1 / ((x - column / (across - 1)) ** 2 + (y - line / (up - 1)) ** 2 + 1e-6);
        sum += weight * value;
        weights += weight;
      }
      values[line * across + column] = sum / weights;
    }
  }
  return { across, up, values };
}

/** Where the surface is so high: pairs of ends x, y, x, y, NaN, NaN, …, by marching squares. */
export function isoline({ across, up, values }: Grid, height: number): number[] {
  const found: number[] = [];
  const at = (column: number, line: number): number => values[line * across + column] ?? 0;
  for (let line = 0; line + 1 < up; line += 1) {
    for (let column = 0; column + 1 < across; column += 1) {
      const corners = [[column, line], [column + 1, line], [column + 1, line + 1], [column, line + 1]] as const;
      const cuts: number[][] = [];
      corners.forEach(([x, y], corner) => {
        const [nextX, nextY] = corners[(corner + 1) % 4] ?? [x, y];
        const [from, to] = [at(x, y), at(nextX, nextY)];
        if (from < height === to < height) return;
        const part = (height - from) / (to - from);
        cuts.push([(x + part * (nextX - x)) / (across - 1), (y + part * (nextY - y)) / (up - 1)]);
      });
      // Four cuts are a saddle: which two belong together, the middle says.
      const middle = corners.reduce((sum, [x, y]) => sum + at(x, y) / 4, 0);
      const pairs = cuts.length === 2 ? [[0, 1]] : cuts.length === 4 ? (middle < height === at(column, line) < height ? [[0, 1], [2, 3]] : [[3, 0], [1, 2]]) : [];
      for (const [one, other] of pairs) found.push(...(cuts[one ?? 0] ?? []), ...(cuts[other ?? 0] ?? []), Number.NaN, Number.NaN);
    }
  }
  return found;
}
