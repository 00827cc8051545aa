// A new cut: which video, from where to where, and whether it starts at once.
import { Button, Empty, Field, html, Problem, send, t, toast, useAction, useState, visible } from "/lts/assets/latest/kit.js";

/** An address of this program; the parts know those of the API. */
export const ours = (path) => new URL(`/${path}`, location.origin);

/** How long a cut is that nobody has said, in seconds. */
const LENGTH_S = 5;
/** As exact as a place can be typed, in seconds. */
const STEP_S = 0.01;

export function NewCut({ videos, directory, made }) {
  const [typed, set] = useState({ video: null, from: "0", to: null, held: false });
  const [tried, tryIt] = useState(false);
  const video = videos.find(({ id }) => id === typed.video) ?? videos[0];
  const to = typed.to ?? String(Math.min(LENGTH_S, video?.seconds ?? 0));
  const wrong = video && mistake(Number(typed.from || NaN), Number(to || NaN), video.seconds);
  const { act, busy, error } = useAction(async () => {
    tryIt(true);
    if (wrong) return document.querySelector(`[name="${wrong.field}"]`)?.focus();
    const cut = await send("POST", ours("cuts"), { video: video.id, from: Number(typed.from), to: Number(to), held: typed.held });
    tryIt(false);
    toast(t(typed.held ? "cut.made_held" : "cut.made"));
    made(cut.id);
  });
  if (!video) return html`<${Empty} title=${t("cut.no_videos")}>${t("cut.no_videos_text", { directory })}<//>`;
  const edit = (field) => (event) => set({ ...typed, [field]: event.target.value });
  const said = (field) => (tried && wrong?.field === field ? wrong.text : null);
  const place = (name, value) => html`<${Field} label=${t(`cut.${name}`)} error=${said(name)}>
    ${(attributes) => html`<input ...${attributes} type="number" name=${name} min="0" max=${video.seconds} step=${STEP_S} value=${value} onInput=${edit(name)} />`}
  <//>`;
  return html`<form onSubmit=${act} novalidate>
    <div class="form">
      <${Field} label=${t("cut.video")} hint=${t("cut.long", { n: Math.round(video.seconds * 100) / 100 })} wide>
        ${(attributes) => html`<select ...${attributes} name="video" onChange=${edit("video")}>
          ${videos.map(({ id, name }) => html`<option key=${id} value=${id} selected=${id === video.id}>${visible(name)}</option>`)}
        </select>`}
      <//>
      ${place("from", typed.from)} ${place("to", to)}
      <label class="check field-wide">
        <input type="checkbox" checked=${typed.held} onChange=${(event) => set({ ...typed, held: event.target.checked })} />
        <span>${t("cut.held")}</span>
      </label>
    </div>
    <${Problem} error=${error} />
    <${Button} kind="primary" type="submit" icon="submit" busy=${busy} disabled=${busy}>${t("cut.make")}<//>
  </form>`;
}

/** What is wrong with a range, and where. */
function mistake(from, to, seconds) {
  if (!(from >= 0 && from < seconds)) return { field: "from", text: t("cut.outside") };
  if (!(to <= seconds + STEP_S)) return { field: "to", text: t("cut.outside") };
  if (!(to > from)) return { field: "to", text: t("cut.not_behind") };
  return null;
}
