// Charts of the time series, drawn as SVG; the same numbers as a table beside.
import { area, Button, Card, clock, html, line, number, rate, scale, stacked, t, Table, useEffect, useRef, useState } from "../kit.js";

const HEIGHT = 168;
const [LEFT, RIGHT, TOP, BOTTOM] = [40, 8, 10, 22];
const WIDTH_FIRST = 560;
/** About how far two labels of the time are apart, in pixels. */
const LABEL_EVERY = 150;

function useWidth() {
  const element = useRef(null);
  const [width, set] = useState(WIDTH_FIRST);
  useEffect(() => {
    const observer = new ResizeObserver(([entry]) => set(Math.max(200, Math.round(entry.contentRect.width))));
    if (element.current) observer.observe(element.current);
    return () => observer.disconnect();
  }, [element.current]);
  return [element, width];
}

/**
 * @param {{title: string, note?: string, points: object[], series: {key: string, name: string, of: (point) => number}[],
 *   kind: "bars"|"lines"}} props
 */
export function Chart({ title, note, points, series, kind }) {
  const [table, showTable] = useState(false);
  const [over, setOver] = useState(null);
  const [element, width] = useWidth();
  const values = points.map((point) => series.map(({ of }) => of(point)));
  const [w, h] = [width - LEFT - RIGHT, HEIGHT - TOP - BOTTOM];
  const totals = values.map((parts) => (kind === "bars" ? parts.reduce((a, b) => a + b, 0) : Math.max(...parts)));
  const { max, ticks } = scale(Math.max(0, ...totals));
  const y = (value) => TOP + h - (value / max) * h;
  const step = points.length ? w / points.length : w;
  const middle = (at) => LEFT + (kind === "bars" ? (at + 0.5) * step : points.length > 1 ? (at / (points.length - 1)) * w : 0);
  const labels = points.length ? Math.min(points.length, Math.max(2, Math.floor(w / LABEL_EVERY))) : 0;
  const labelled = Array.from({ length: labels }, (_, n) => Math.round((n * (points.length - 1)) / Math.max(1, labels - 1)));
  const find = (event) => {
    const x = event.clientX - event.currentTarget.getBoundingClientRect().left - LEFT;
    const at = kind === "bars" ? Math.floor(x / step) : Math.round((x / w) * (points.length - 1));
    setOver(at >= 0 && at < points.length ? at : null);
  };
  const move = (event) => {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!by || !points.length) return;
    event.preventDefault();
    setOver(Math.min(points.length - 1, Math.max(0, (over ?? points.length) + by)));
  };
  const seen = over !== null && over < points.length ? over : null;
  const toggle = html`<${Button} kind="quiet" aria-pressed=${table} onClick=${() => showTable(!table)}>
    ${t(table ? "chart.show_chart" : "chart.show_table")}
  <//>`;
  return html`<${Card} title=${title} actions=${toggle} class="chart-card">
    <div class="legend">
      ${series.map(
        ({ key, name }, at) => html`<span key=${key} class="legend-item" data-series=${key}>
          ${name}${seen !== null && html` <b class="number">${rate(values[seen][at])}</b>`}
        </span>`,
      )}
      <span class="legend-at muted">${seen !== null ? clock(points[seen].at) : note}</span>
    </div>
    ${table
      ? html`<${Numbers} title=${title} points=${points} series=${series} values=${values} />`
      : html`<div ref=${element} class="chart">
          <svg
            width="100%"
            height=${HEIGHT}
            role="img"
            tabindex="0"
            aria-label=${summary(title, series, values)}
            onPointerMove=${find}
            onPointerLeave=${() => setOver(null)}
            onKeyDown=${move}
            onBlur=${() => setOver(null)}
          >
            ${ticks.map(
              (tick) => html`<g key=${tick} class="tick">
                <line x1=${LEFT} x2=${width - RIGHT} y1=${y(tick)} y2=${y(tick)} />
                <text x=${LEFT - 8} y=${y(tick) + 4} text-anchor="end">${number(tick, { notation: "compact" })}</text>
              </g>`,
            )}
            <g transform=${`translate(${LEFT} ${TOP})`}>
              ${kind === "bars"
                ? html`<${Bars} values=${values} series=${series} max=${max} height=${h} step=${step} seen=${seen} />`
                : html`<${Lines} values=${values} series=${series} max=${max} width=${w} height=${h} />`}
            </g>
            ${seen !== null &&
            kind === "lines" &&
            html`<line class="cursor" x1=${middle(seen)} x2=${middle(seen)} y1=${TOP} y2=${TOP + h} />`}
            ${labelled.map(
              (at, n) => html`<text
                key=${at}
                class="tick-text"
                x=${n === labels - 1 && labels > 1 ? width - RIGHT : n === 0 ? LEFT : middle(at)}
                y=${HEIGHT - 6}
                text-anchor=${n === labels - 1 && labels > 1 ? "end" : n === 0 ? "start" : "middle"}
              >
                ${clock(points[at].at)}
              </text>`,
            )}
            ${!points.length &&
            html`<text class="tick-text" x=${LEFT + w / 2} y=${TOP + h / 2} text-anchor="middle">${t("chart.none")}</text>`}
          </svg>
        </div>`}
  <//>`;
}

const summary = (title, series, values) =>
  [
    title,
    ...series.map(({ name }, at) =>
      t("chart.summary", {
        name,
        last: rate(values.at(-1)?.[at] ?? 0),
        most: rate(Math.max(0, ...values.map((parts) => parts[at]))),
      }),
    ),
  ].join(". ");

/** Widest bar, in pixels. */
const BAR_MAX = 24;

function Bars({ values, series, max, height, step, seen }) {
  const width = Math.min(BAR_MAX, step - Math.min(2, step / 4));
  return stacked(values, max, height).map(
    (parts, at) => html`<g key=${at} class=${seen === null || seen === at ? "" : "dimmed"}>
      ${parts.map(
        (part, n) =>
          part.height > 0 &&
          html`<rect
            key=${n}
            data-series=${series[n].key}
            x=${(at + 0.5) * step - width / 2}
            width=${width}
            y=${part.y}
            height=${part.height}
          />`,
      )}
    </g>`,
  );
}

const Lines = ({ values, series, max, width, height }) =>
  series.map(({ key }, n) => {
    const own = values.map((parts) => parts[n]);
    return html`<g key=${key} data-series=${key}>
      <path class="area" d=${area(own, max, width, height)} />
      <path class="line" d=${line(own, max, width, height)} />
    </g>`;
  });

function Numbers({ title, points, series, values }) {
  const head = [[t("column.time")], ...series.map(({ name }) => [name, "right"])];
  const rows = points.map(
    (point, at) => html`<tr key=${point.at}>
      <th scope="row">${clock(point.at)}</th>
      ${values[at].map((value, n) => html`<td class="right number" key=${n}>${rate(value)}</td>`)}
    </tr>`,
  );
  return html`<${Table} label=${title} head=${head} scroll="chart-table">${rows.reverse()}<//>`;
}
