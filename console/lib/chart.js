// The geometry of charts: pure functions of numbers.

/** A round number at or above the largest, and where lines are drawn below it. */
export function scale(largest, lines = 3) {
  if (!(largest > 0)) return { max: 1, ticks: [0, 1] };
  const rough = largest / lines;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((factor) => factor * power).find((step) => step >= rough * (1 - 1e-9));
  const count = Math.ceil(largest / step - 1e-9);
  const ticks = Array.from({ length: count + 1 }, (_, n) => Number((n * step).toPrecision(12)));
  return { max: ticks[count], ticks };
}

/** Bars on each other: for each point the y and height of each part, from the bottom up. */
export function stacked(values, max, height) {
  return values.map((parts) => {
    let below = 0;
    return parts.map((part) => {
      const top = height - ((below + part) / max) * height;
      const size = (part / max) * height;
      below += part;
      return { y: top, height: size };
    });
  });
}

const round = (value) => Math.round(value * 10) / 10;

/** A line through values at even distances. */
export const line = (values, max, width, height) =>
  values
    .map((value, at) => {
      const x = values.length > 1 ? (at / (values.length - 1)) * width : 0;
      return `${at ? "L" : "M"}${round(x)} ${round(height - (value / max) * height)}`;
    })
    .join("");

/** The same, filled down to the ground. */
export const area = (values, max, width, height) =>
  values.length ? `${line(values, max, width, height)}L${width} ${height}L0 ${height}Z` : "";

/**
 * Points of a series into at most so many buckets, the last one ending at the end: sums what was counted in each and keeps
 * the last of what was measured.
 */
export function buckets(points, count) {
  const size = Math.ceil(points.length / count) || 1;
  const found = [];
  for (let end = points.length; end > 0; end -= size) {
    const group = points.slice(Math.max(0, end - size), end);
    const last = group.at(-1);
    const sum = (name) => group.reduce((total, point) => total + point[name], 0);
    found.unshift({
      at: last.at,
      seconds: sum("seconds"),
      succeeded: sum("succeeded"),
      failed: sum("failed"),
      cancelled: sum("cancelled"),
      waiting: last.waiting,
      running: last.running,
    });
  }
  return found;
}
