// Light or dark: as the system has it, unless somebody has chosen.
import { signal } from "./view.js";
import { setting } from "./base.js";

/** `auto`, `light` or `dark`. */
export const theme = signal(setting.get("theme") ?? "auto");

const dark = matchMedia("(prefers-color-scheme: dark)");

function show() {
  if (theme.value === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme.value;
}

/** The other one than is seen now. */
export function toggleTheme() {
  const seen = theme.value === "auto" ? (dark.matches ? "dark" : "light") : theme.value;
  const next = seen === "dark" ? "light" : "dark";
  // What the system wants anyway need not be kept.
  theme.value = next === (dark.matches ? "dark" : "light") ? "auto" : next;
  setting.set("theme", theme.value === "auto" ? null : theme.value);
  show();
}

show();
