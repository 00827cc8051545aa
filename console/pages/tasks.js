// Tasks: found by a query, a page at a time; what is new is announced and does not push rows away.
import { actOn, address, bind, Button, Empty, get, go, html, Icon, IconButton, Loading, mayOperate, onMove, PageHead, Pager, part, place, Problem, short, STATES, stats, suggestions, t, TaskTable, terms, useEffect, useLive, useMemo, useRef, useState, valueOf, withParams, withTerm } from "../kit.js";

const PAGE = 50;
/** How many rows that are no longer on the page are looked at one by one. */
const LOOKED_AT_MAX = 20;
/** How many answers of the server are put together for a page. */
const ANSWERS_MAX = 20;
const ACTIONS = [
  ["cancel", "cancelled"],
  ["retry", "retrying"],
  ["start", "play"],
  ["delete", "trash"],
];

export function Tasks() {
  const { query, state } = place.value;
  const q = query.get("q") ?? "";
  const cursor = query.get("cursor");
  const list = useList(q, cursor);
  const selection = useSelection(list.rows, q);
  useRowKeys(selection);
  return html`
    <${PageHead} title=${t("page.tasks")}>
      ${mayOperate() && html`<a class="button primary" href="submit"><${Icon} name="submit" /> <span>${t("page.submit")}</span></a>`}
    <//>
    <div class="with-side">
      <${States} q=${q} />
      <div class="list">
        <${QueryBar} key=${q} q=${q} error=${list.error?.code === "invalid" ? list.error : null} />
        ${mayOperate() && selection.ids.length > 0 && html`<${SelectionBar} selection=${selection} q=${q} list=${list} />`}
        <${Rows} list=${list} selection=${mayOperate() ? selection : undefined} q=${q} />
        <${Pager} cursor=${cursor} next=${list.next} trail=${state?.trail ?? []} to=${(cursor, trail) => go(address("tasks", { q, cursor }), { state: { trail } })} />
      </div>
    </div>
  `;
}

/** The rows of a page: they change where they stand, and new ones wait until somebody wants them. */
function useList(q, cursor) {
  const key = `${q}\n${cursor ?? ""}`;
  const fetched = useLive(key, (signal) => fetchPage(q, cursor, held.current.rows, signal));
  const held = useRef({ key: null, rows: null, next: null, seen: null });
  const [, redraw] = useState(0);
  const list = held.current;
  if (list.key !== key) Object.assign(list, { key, rows: null, next: null, seen: null, fresh: [] });
  const { data } = fetched;
  if (data && data.page !== list.seen && data.key === key) {
    list.seen = data.page;
    if (!list.rows?.length) adopt(list, data.page);
    else merge(list, data);
  }
  useEffect(
    () =>
      onMove(({ id, state }) => {
        const row = held.current.rows?.find((row) => row.id === id);
        if (!row || row.state === state) return;
        Object.assign(row, { state, phase: state });
        redraw((count) => count + 1);
      }),
    [],
  );
  const show = () => {
    adopt(list, list.seen);
    redraw((count) => count + 1);
  };
  return { rows: list.rows ?? [], loaded: list.rows !== null, next: list.next, fresh: list.fresh.length, show, error: fetched.error, refresh: fetched.refresh };

  function adopt(list, page) {
    Object.assign(list, { rows: page.tasks, next: page.next, fresh: [] });
  }
}

function merge(list, { page, others }) {
  const now = new Map([...others, ...page.tasks].map((task) => [task.id, task]));
  list.rows = list.rows.map((row) => now.get(row.id) ?? row);
  const known = new Set(list.rows.map((row) => row.id));
  list.fresh = page.tasks.filter((task) => !known.has(task.id));
}

async function fetchPage(q, cursor, rows, signal) {
  const page = await get(withParams("tasks", { q, cursor, limit: PAGE }), signal);
  // The server looks at a bounded number of tasks for an answer: where few match, more answers make a page.
  for (let more = 0; page.next && page.tasks.length < PAGE && more < ANSWERS_MAX; more++) {
    const next = await get(withParams("tasks", { q, cursor: page.next, limit: PAGE - page.tasks.length }), signal);
    page.tasks.push(...next.tasks);
    page.next = next.next;
  }
  const found = new Set(page.tasks.map((task) => task.id));
  // Rows that the page has lost: pushed on, moved out of the query, or removed.
  const lost = (rows ?? []).filter((row) => !found.has(row.id) && !row.gone && !row.finished_at).slice(0, LOOKED_AT_MAX);
  const others = await Promise.all(
    lost.map((row) =>
      get(`tasks/${part(row.id)}`, signal).catch((error) => {
        if (error.status === 404) return { ...row, gone: true };
        throw error;
      }),
    ),
  );
  return { key: `${q}\n${cursor ?? ""}`, page, others };
}

function useSelection(rows, q) {
  const [{ ids, matching }, set] = useState({ ids: [], matching: false });
  const choose = (ids, matching = false) => set({ ids, matching });
  const has = (id) => ids.includes(id);
  const all = rows.length > 0 && rows.every((row) => has(row.id));
  useEffect(() => choose([]), [q]);
  return {
    has,
    ids,
    all,
    matching,
    toggle: (id) => choose(has(id) ? ids.filter((other) => other !== id) : [...ids, id]),
    clear: () => choose([]),
    matchAll: () => choose(ids, true),
    toggleAll: () => choose(all ? [] : rows.map((row) => row.id)),
  };
}

/** `j` and `k` move over the rows, `x` selects. */
function useRowKeys(selection) {
  const now = useRef();
  now.current = selection;
  useEffect(() => {
    const links = () => [...document.querySelectorAll("[data-row]")];
    const at = () => links().findIndex((link) => link.closest("tr").contains(document.activeElement));
    const move = (by) => {
      const all = links();
      all[Math.min(all.length - 1, Math.max(0, at() + by))]?.focus();
    };
    return bind({
      j: () => move(1),
      k: () => move(-1),
      x: () => {
        const link = links()[at()];
        if (!link || !mayOperate()) return false;
        now.current.toggle(link.dataset.row);
      },
    });
  }, []);
}

function States({ q }) {
  const numbers = stats.value;
  const queue = valueOf(q, "queue");
  const counts = queue ? numbers?.queues.find(({ name }) => name === queue)?.counts : numbers?.totals;
  const chosen = valueOf(q, "state");
  const count = (state) => (state === "waiting" ? counts.waiting + counts.scheduled : counts[state]);
  const whole = counts && Object.values(counts).reduce((sum, n) => sum + n, 0);
  const link = (state, value, text, n) => html`<a
    key=${text}
    href=${address("tasks", { q: withTerm(q, "state", value) })}
    aria-current=${chosen === value ? "true" : undefined}
    class=${state === "scheduled" ? "sub" : ""}
    data-state=${state}
  >
    <${Icon} name=${state ?? "tasks"} /> <span>${text}</span> <span class="number muted">${n === undefined ? "" : short(n)}</span>
  </a>`;
  return html`<nav class="states" aria-label=${t("tasks.states")}>
    ${link(undefined, undefined, t("tasks.all"), whole)}
    ${STATES.map((state) => link(state, state === "scheduled" ? "scheduled,retrying" : state, t(`state.${state}`), counts && count(state)))}
  </nav>`;
}

function QueryBar({ q, error }) {
  const [text, setText] = useState(q);
  const [open, setOpen] = useState(false);
  const [at, setAt] = useState(-1);
  const input = useRef(null);
  const queues = (stats.value?.queues ?? []).map(({ name }) => name);
  const caret = input.current?.selectionStart ?? text.length;
  const found = useMemo(
    () => (open ? suggestions(text, caret, { queues, kinds: ["process", "docker", "http"] }) : []),
    [open, text, caret, queues.join()],
  );
  const submit = (query) => {
    setOpen(false);
    go(address("tasks", { q: terms(query).join(" ") }));
  };
  const take = ({ text, whole }) => {
    setText(whole);
    setAt(-1);
    input.current.focus();
    // A value is an end; a field is a beginning.
    if (!/[:.]$/.test(text)) setOpen(false);
  };
  const keys = (event) => {
    if (event.key === "Escape") {
      if (!open) input.current.blur();
      setOpen(false);
    } else if (found.length && (event.key === "ArrowDown" || event.key === "ArrowUp")) {
      const by = event.key === "ArrowDown" ? 1 : -1;
      setAt((at + by + found.length + (at < 0 && by < 0 ? 1 : 0)) % found.length);
    } else if (event.key === "Enter" && found[at]) take(found[at]);
    else return;
    event.preventDefault();
  };
  return html`<form class="query" role="search" onSubmit=${(event) => (event.preventDefault(), submit(text))}>
    <${Icon} name="search" />
    <input
      ref=${input}
      data-search="1"
      type="text"
      role="combobox"
      spellcheck="false"
      autocomplete="off"
      autocapitalize="off"
      aria-label=${t("tasks.query")}
      aria-expanded=${found.length > 0}
      aria-controls="suggestions"
      aria-autocomplete="list"
      aria-activedescendant=${found[at] ? `suggestion-${at}` : undefined}
      aria-invalid=${error ? "true" : undefined}
      aria-describedby=${error ? "query-error" : undefined}
      placeholder=${t("tasks.query_hint")}
      value=${text}
      onInput=${(event) => (setText(event.target.value), setOpen(true), setAt(-1))}
      onFocus=${() => setOpen(true)}
      onBlur=${() => setTimeout(() => setOpen(false), 150)}
      onKeyDown=${keys}
    />
    ${text && html`<${IconButton} icon="close" label=${t("tasks.clear")} onClick=${() => submit("")} />`}
    <ul id="suggestions" role="listbox" aria-label=${t("tasks.suggestions")} hidden=${!found.length}>
      ${found.map(
        (each, n) => html`<li
          key=${each.text}
          id=${`suggestion-${n}`}
          role="option"
          aria-selected=${n === at}
          onMouseDown=${(event) => (event.preventDefault(), take(each))}
        >
          ${each.text}
        </li>`,
      )}
    </ul>
    ${error && html`<p id="query-error" class="field-error" role="alert"><${Icon} name="failures" size="14" /> ${error.message}</p>`}
  </form>`;
}

function SelectionBar({ selection, q, list }) {
  const which = () => (selection.matching ? { q } : { ids: selection.ids });
  const done = () => {
    selection.clear();
    list.refresh();
  };
  return html`<div class="selection" role="group" aria-label=${t("tasks.selection")}>
    <strong role="status">${selection.matching ? t("tasks.all_matching") : t("tasks.selected", { n: selection.ids.length })}</strong>
    ${selection.all &&
    !selection.matching &&
    list.next &&
    html`<button type="button" class="button quiet" onClick=${selection.matchAll}>${t("tasks.match_all")}</button>`}
    <span class="space"></span>
    ${ACTIONS.map(
      ([action, icon]) => html`<${Button} key=${action} icon=${icon} onClick=${() => actOn(action, which(), done)}>${t(`action.${action}`)}<//>`,
    )}
    <${IconButton} icon="close" label=${t("tasks.unselect")} onClick=${selection.clear} />
  </div>`;
}

function Rows({ list, selection, q }) {
  if (list.error && list.error.code !== "invalid" && !list.rows.length) return html`<${Problem} error=${list.error} retry=${list.refresh} />`;
  if (!list.loaded) return list.error ? null : html`<${Loading} />`;
  if (!list.rows.length) {
    return html`<div class="card">
      <${Empty} icon="tasks" title=${t(q ? "tasks.none_found" : "tasks.none")}>
        ${q && html`<a href="tasks">${t("tasks.show_all")}</a>`} ${q && list.next && html`<p>${t("tasks.more_pages")}</p>`}
      <//>
    </div>`;
  }
  return html`<div class="card flush">
    ${list.fresh > 0 &&
    html`<div class="fresh" role="status">
      <button type="button" class="fresh-pill" onClick=${list.show}>${t("tasks.fresh", { n: list.fresh })}${list.fresh >= PAGE ? "+" : ""}</button>
    </div>`}
    <${TaskTable} tasks=${list.rows} label=${t("page.tasks")} selection=${selection} />
  </div>`;
}
