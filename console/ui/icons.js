// Small drawings, 16 by 16, in the colour of the text around them.
import { html } from "../kit.js";

const CIRCLE = "M8 1.8a6.2 6.2 0 1 0 0 12.4 6.2 6.2 0 0 0 0-12.4";

const STROKES = {
  // Pages.
  overview: "M2.5 13.5V9M6.2 13.5V4.5M9.8 13.5V7M13.5 13.5V2.5",
  tasks: "M2.5 4h1M2.5 8h1M2.5 12h1M6 4h7.5M6 8h7.5M6 12h7.5",
  queues: "M2.5 4.5h11v3h-11zM2.5 10.5h7M2.5 13.5h4M11.5 10.5l1.5 1.5-1.5 1.5",
  workers: "M4.5 4.5h7v7h-7zM6.5 2v2.5M9.5 2v2.5M6.5 11.5V14M9.5 11.5V14M2 6.5h2.5M2 9.5h2.5M11.5 6.5H14M11.5 9.5H14",
  failures: "M8 2.2 14.3 13.3H1.7zM8 6.5v3.2M8 11.4v.2",
  submit: "M8 3v10M3 8h10",
  // States.
  held: `${CIRCLE}M6.3 6v4M9.7 6v4`,
  waiting: "M4 2h8M4 14h8M5 2v2.5L8 8l3-3.5V2M5 14v-2.5L8 8l3 3.5V14",
  scheduled: `${CIRCLE}M8 4.5V8l2.5 1.5`,
  retrying: "M13.5 8A5.5 5.5 0 1 1 11.6 3.8M13.5 2v3h-3",
  running: `${CIRCLE}M6.6 5.4 10.6 8l-4 2.6z`,
  exporting: "M8 10V2.5M5 5.2l3-3 3 3M2.5 10v3.5h11V10",
  succeeded: `${CIRCLE}M5.3 8.2l1.9 1.9 3.6-4`,
  failed: "M5.4 1.8h5.2l3.6 3.6v5.2l-3.6 3.6H5.4l-3.6-3.6V5.4zM6 6l4 4M10 6l-4 4",
  cancelled: `${CIRCLE}M3.7 3.7l8.6 8.6`,
  cancelling: `${CIRCLE}M6 6h4v4H6z`,
  // The rest.
  pause: "M5.5 3.5v9M10.5 3.5v9",
  play: "M5 3l8 5-8 5z",
  stop: "M4 4h8v8H4z",
  trash: "M2.5 4h11M6 4V2.5h4V4M4 4l.7 9.5h6.6L12 4M6.7 6.5v4.5M9.3 6.5v4.5",
  copy: "M5.5 5.5h8v8h-8zM3.5 10.5h-1v-8h8v1",
  edit: "M3 13l.6-2.7 7.5-7.5 2.1 2.1-7.5 7.5zM9.7 4.2l2.1 2.1",
  search: "M7 2.5a4.5 4.5 0 1 0 0 9 4.5 4.5 0 0 0 0-9M10.3 10.3l3.2 3.2",
  close: "M4 4l8 8M12 4l-8 8",
  down: "M8 3v10M4.5 9.5 8 13l3.5-3.5",
  download: "M8 2.5V10M5 7.3l3 3 3-3M2.5 11v2.5h11V11",
  left: "M10 3.5 5.5 8l4.5 4.5",
  right: "M6 3.5 10.5 8 6 12.5",
  info: `${CIRCLE}M8 7.3V11M8 4.9v.2`,
  unlocked: "M3.5 7.5h9v6h-9zM5.5 7.5V5A2.5 2.5 0 0 1 10.3 4",
  sun: "M8 5a3 3 0 1 0 0 6 3 3 0 0 0 0-6M8 1.5v1M8 13.5v1M1.5 8h1M13.5 8h1M3.4 3.4l.7.7M11.9 11.9l.7.7M3.4 12.6l.7-.7M11.9 4.1l.7-.7",
  moon: "M13.5 9.5A5.8 5.8 0 0 1 6.5 2.5a5.8 5.8 0 1 0 7 7z",
  keyboard: "M1.5 4h13v8h-13zM4 6.5h.1M6.7 6.5h.1M9.3 6.5h.1M12 6.5h.1M5 9.5h6",
  wrap: "M2.5 4h11M2.5 8h9a2 2 0 0 1 0 4H8M9.5 10.5 8 12l1.5 1.5M2.5 12h2.5",
  more: "M3.5 8h.1M8 8h.1M12.5 8h.1",
};

/** @param {{name: keyof typeof STROKES, size?: number, label?: string}} props with a label if there is no text beside it */
export const Icon = ({ name, size = 16, label, class: extra = "" }) => html`<svg
  class=${`icon ${extra}`}
  width=${size}
  height=${size}
  viewBox="0 0 16 16"
  fill="none"
  stroke="currentColor"
  stroke-width="1.5"
  stroke-linecap="round"
  stroke-linejoin="round"
  role=${label ? "img" : undefined}
  aria-label=${label}
  aria-hidden=${label ? undefined : "true"}
>
  <path d=${STROKES[name]} />
</svg>`;

/** A button that is only a drawing. */
export const IconButton = ({ icon, label, ...rest }) => html`<button
  type="button"
  class="button icon-button"
  aria-label=${label}
  title=${label}
  ...${rest}
>
  <${Icon} name=${icon} />
</button>`;
