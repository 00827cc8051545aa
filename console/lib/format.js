// Numbers, sizes and times for people, in the language of the page.
import { signal } from "./view.js";
import { intl, t } from "./i18n.js";

const SECOND_MS = 1_000;
const MINUTE_MS = 60 * SECOND_MS;
const HOUR_MS = 60 * MINUTE_MS;
const DAY_MS = 24 * HOUR_MS;
const UNITS = [[DAY_MS, "day"], [HOUR_MS, "hour"], [MINUTE_MS, "minute"], [SECOND_MS, "second"]];

/** How far the server's clock is before ours, in ms. */
let ahead = 0;
/** The time of the server, which ticks every second while the page is seen. */
export const now = signal(Date.now());

export function setServerTime(text) {
  const at = Date.parse(text);
  if (Number.isFinite(at)) ahead = at - Date.now();
}

setInterval(() => {
  if (!document.hidden) now.value = Date.now() + ahead;
}, SECOND_MS);

export const number = (value, options) => intl("NumberFormat", options).format(value);

/** A number in little room: 12,345 is 12K. */
export const short = (value) =>
  value < 10_000 ? number(value) : number(value, { notation: "compact", maximumFractionDigits: 1 });

/** A rate or a part, with as many digits as tell something. */
export const rate = (value) => number(value, { maximumFractionDigits: value < 10 ? 1 : 0 });

export const percent = (part) => number(part, { style: "percent", maximumFractionDigits: part > 0.99 && part < 1 ? 1 : 0 });

export function bytes(count) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let power = 0;
  while (count >= 1024 && power < units.length - 1) {
    count /= 1024;
    power += 1;
  }
  return `${number(count, { maximumFractionDigits: count < 10 && power ? 1 : 0 })} ${units[power]}`;
}

/** A length of time, in its two largest units. */
export function duration(ms) {
  if (ms < SECOND_MS) return t("unit.ms", { n: Math.max(0, Math.round(ms)) });
  if (ms < 10 * SECOND_MS) return t("unit.s", { n: Math.round(ms / 100) / 10 });
  const seconds = Math.round(ms / SECOND_MS);
  const units = [
    ["unit.d", Math.floor(seconds / 86_400)],
    ["unit.h", Math.floor(seconds / 3_600) % 24],
    ["unit.m", Math.floor(seconds / 60) % 60],
    ["unit.s", seconds % 60],
  ];
  const first = units.findIndex(([, n]) => n > 0);
  return units
    .slice(first, first + 2)
    .filter(([, n], place) => place === 0 || n > 0)
    .map(([unit, n]) => t(unit, { n }))
    .join(" ");
}

/** How long ago, or in how long: only as exact as one cares for. */
export function relative(ms) {
  const [sign, size] = [Math.sign(ms), Math.abs(ms)];
  if (size < 5 * SECOND_MS) return t("time.now");
  const [length, unit] = UNITS.find(([length]) => size >= length);
  return intl("RelativeTimeFormat", { numeric: "auto", style: "short" }).format(sign * Math.floor(size / length), unit);
}

/** A moment, exactly. */
export const moment = (text) =>
  intl("DateTimeFormat", { dateStyle: "medium", timeStyle: "long" }).format(new Date(text));

/** A moment of today as its time, another with its day. */
export function clock(text) {
  const [at, today] = [new Date(text), new Date()];
  const same = at.toDateString() === today.toDateString();
  const time = { hour: "2-digit", minute: "2-digit", second: "2-digit" };
  const options = same ? time : { month: "short", day: "numeric", hour: "2-digit", minute: "2-digit" };
  return intl("DateTimeFormat", { ...options, hourCycle: "h23" }).format(at);
}

/** A span as the server says it (`PT90S`), in ms. */
export function parseSpan(text) {
  const found = /^P(?:(\d+)D)?(?:T(?:(\d+)H)?(?:(\d+)M)?(?:([\d.]+)S)?)?$/.exec(text ?? "");
  if (!found) return null;
  const [days, hours, minutes, seconds] = found.slice(1).map((part) => Number(part ?? 0));
  return days * DAY_MS + hours * HOUR_MS + minutes * MINUTE_MS + seconds * SECOND_MS;
}

/** A span as one types it, `1m30s`: what the server says, in a field that is edited. */
export function typedSpan(text) {
  const ms = parseSpan(text);
  if (ms == null) return text ?? "";
  if (ms % SECOND_MS) return `${ms}ms`;
  const seconds = ms / SECOND_MS;
  const parts = [
    [Math.floor(seconds / 3_600), "h"],
    [Math.floor(seconds / 60) % 60, "m"],
    [seconds % 60, "s"],
  ].filter(([n]) => n > 0);
  return parts.map(([n, unit]) => `${n}${unit}`).join("") || "0s";
}
