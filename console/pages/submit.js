// Submits a task: a command in a friendly form, anything else with its payload as JSON.
import { address, argvOf, bodyOf, Button, Card, Choice, copy, curlOf, Empty, Field, FieldMistake, go, html, Json, mayOperate, needsShell, PageHead, place, Problem, send, stats, t, taskHref, TEMPLATES, toast, urlOf, useAction, useState, withField } from "../kit.js";

const TYPES = ["process", "docker", "http", "other"];
const EMPTY = {
  command: "",
  cwd: "",
  env: "",
  stdin: "",
  kind: "",
  payload: "",
  queue: "default",
  priority: "0",
  timeout: "",
  delay: "",
  attempts: "1",
  labels: "",
  held: false,
};

export function Submit() {
  const asked = place.value.query.get("kind");
  const type = TYPES.includes(asked) ? asked : "process";
  const [typed, set] = useState({ ...EMPTY, queue: place.value.query.get("queue") || "default" });
  // What nobody has typed yet is shown how it may look.
  const values = { ...typed, payload: typed.payload || (TEMPLATES[type] ?? "") };
  const [mistake, setMistake] = useState(null);
  const { act, busy, error } = useAction(submit);
  if (!mayOperate()) return html`<${PageHead} title=${t("page.submit")} /><${Empty} icon="info" title=${t("submit.not_allowed")} />`;

  const built = attempt(() => bodyOf(type, values));
  async function submit() {
    setMistake(built.mistake);
    if (built.mistake) return document.querySelector(`[data-field="${built.mistake.field}"]`)?.focus();
    const task = await send("POST", "tasks", built.body);
    toast(t("done.submit"));
    go(taskHref(task.id));
  }
  const edit = (field) => (event) => {
    set(withField(typed, field, event));
    if (mistake?.field === field) setMistake(null);
  };
  const form = { values, edit, mistake };
  return html`
    <${PageHead} title=${t("page.submit")} />
    <div class="submit-page">
      <form class="card" onSubmit=${act} novalidate>
        <${Choice}
          label=${t("column.kind")}
          value=${type}
          options=${TYPES.map((name) => [name, t(`kind.${name}`)])}
          onChange=${(name) => go(address("submit", { kind: name === "process" ? null : name }), { replace: true })}
        />
        <div class="form"><${Fields} type=${type} ...${form} /><${Basic} ...${form} /></div>
        <details class="more">
          <summary>${t("submit.more")}</summary>
          <div class="form">${type === "process" && html`<${Around} ...${form} />`}<${Common} ...${form} /></div>
        </details>
        <${Problem} error=${error} />
                  <${Button} kind="primary" type="submit" icon="submit" busy=${busy} disabled=${busy}>${t("page.submit")}<//>
      </form>
      <${Card}
        title=${t("submit.request")}
        actions=${built.body && html`<${Button} kind="quiet" icon="copy" onClick=${() => copy(curlOf(urlOf("api/v1/tasks"), built.body))}>${t("submit.copy_curl")}<//>`}
      >
        ${built.body
          ? html`<p class="muted small mono">POST ${new URL(urlOf("api/v1/tasks")).pathname}</p>
              <${Json} text=${built.body} label=${t("submit.request")} />`
          : html`<p class="muted">${t("submit.request_text")}</p>`}
      <//>
    </div>
  `;
}

function attempt(build) {
  try {
    return { body: build(), mistake: null };
  } catch (error) {
    if (error instanceof FieldMistake) return { body: null, mistake: error };
    throw error;
  }
}

function useInputs({ values, edit, mistake }) {
  const error = (field) => (mistake?.field === field ? t(mistake.key, mistake.values) : null);
  const input = (field, label, { hint, wide, ...more } = {}) => html`<${Field} label=${label} hint=${hint} error=${error(field)} wide=${wide}>
    ${(attributes) => html`<input ...${attributes} ...${more} data-field=${field} value=${values[field]} onInput=${edit(field)} />`}
  <//>`;
  const area = (field, label, { hint, rows = 3, ...more } = {}) => html`<${Field} label=${label} hint=${hint} error=${error(field)} wide>
    ${(attributes) => html`<textarea
      ...${attributes}
      ...${more}
      class="mono"
      spellcheck="false"
      rows=${rows}
      data-field=${field}
      value=${values[field]}
      onInput=${edit(field)}
    ></textarea>`}
  <//>`;
  return { input, area };
}

function Fields({ type, ...form }) {
  const { input, area } = useInputs(form);
  if (type !== "process") {
    return html`${type === "other" && input("kind", t("column.kind"), { hint: t("submit.kind_hint"), wide: true })} ${area("payload", t("task.payload"), { rows: 9 })}`;
  }
  const { command } = form.values;
  const shell = command.trim() && argvOf(command)?.[0] === "sh" && needsShell(command);
  return area("command", t("submit.command"), {
    hint: t(shell ? "submit.through_shell" : "submit.command_hint"),
    placeholder: 'echo "hello"',
  });
}

/** What a command runs with. */
function Around(form) {
  const { input, area } = useInputs(form);
  return html`
    ${input("cwd", t("submit.cwd"), { wide: true, placeholder: "/srv/work" })} ${area("env", t("submit.env"), { hint: t("submit.pairs_hint"), rows: 2 })}
    ${area("stdin", t("submit.stdin"), { rows: 2 })}
  `;
}

function Basic(form) {
  const { input } = useInputs(form);
  const queues = stats.value?.queues ?? [];
  return html`
    ${input("queue", t("fact.queue"), { list: "queue-names" })}
    <datalist id="queue-names">${queues.map(({ name }) => html`<option key=${name} value=${name}></option>`)}</datalist>
    ${input("timeout", t("fact.timeout"), { placeholder: "10m" })}
  `;
}

function Common(form) {
  const { input, area } = useInputs(form);
  return html`
    ${input("priority", t("fact.priority"), { type: "number", hint: t("submit.priority_hint") })}
    ${input("attempts", t("submit.attempts"), { type: "number", min: 1, hint: t("submit.attempts_hint") })}
    ${input("delay", t("submit.delay"), { hint: t("submit.span_hint"), placeholder: "30s" })}
    ${area("labels", t("fact.labels"), { hint: t("submit.pairs_hint"), rows: 2 })}
    <label class="check field-wide"><input type="checkbox" checked=${form.values.held} onChange=${form.edit("held")} /> <span>${t("submit.held")}</span></label>
  `;
}
