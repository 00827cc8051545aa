// Light or dark: as the system has it, unless somebody has chosen.
import { computed, signal } from "./view.js";
import { setting } from "./base.js";

/** `auto`, `light` or `dark`. */
export const theme = signal(setting.get("theme") ?? "auto");

const system = matchMedia("(prefers-color-scheme: dark)");
const wanted = signal(system.matches);
system.addEventListener("change", () => (wanted.value = system.matches));

/** Whether the page is dark now. */
export const dark = computed(() => (theme.value === "auto" ? wanted.value : theme.value === "dark"));

function show() {
  if (theme.value === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme.value;
}

/** The other one than is seen now. */
export function toggleTheme() {
  const next = !dark.value;
  // What the system wants anyway need not be kept.
  theme.value = next === wanted.value ? "auto" : next ? "dark" : "light";
  setting.set("theme", theme.value === "auto" ? null : theme.value);
  show();
}

show();
