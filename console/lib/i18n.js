// The language: flat dictionaries of messages with {placeholders} and {count|one|other}.
import { signal } from "./view.js";
import { setting } from "./base.js";

export const LANGUAGES = { en: "English", "zh-CN": "简体中文" };

/** @type {Record<string, Record<string, string>>} */
const dictionaries = {};

export const language = signal("en");

/** What a person asks for: the address, then what was chosen before, then the browser. */
export function preferred(search, kept, offered) {
  const asked = [new URLSearchParams(search).get("lang"), kept, ...offered].filter(Boolean);
  for (const tag of asked) {
    if (LANGUAGES[tag]) return tag;
    if (/^zh\b/i.test(tag)) return "zh-CN";
    if (/^en\b/i.test(tag)) return "en";
  }
  return "en";
}

/** Where the dictionaries are: a page of somebody else that is made of these parts adds its own, before it speaks. */
export const dictionaryPlaces = [new URL("../i18n/", import.meta.url)];

async function load(name) {
  if (dictionaries[name]) return;
  const fetched = dictionaryPlaces.map(async (place) => (await fetch(new URL(`${name}.json`, place))).json());
  dictionaries[name] = Object.assign({}, ...(await Promise.all(fetched)));
}

/** Loads a language and shows it. */
export async function speak(name, { keep = true } = {}) {
  await load(name);
  language.value = name;
  document.documentElement.lang = name;
  if (keep) setting.set("language", name);
}

export const startLanguage = () =>
  speak(preferred(location.search, setting.get("language"), navigator.languages ?? []), { keep: false });

const formats = {};

/** A format of this kind in a language: making one takes longer than using it a hundred times. */
export const intl = (kind, options, tag = language.value) =>
  (formats[kind + tag + JSON.stringify(options)] ??= new Intl[kind](tag, options));

const PLACEHOLDER = /\{(\w+)(?:\|([^|{}]*)\|([^|{}]*))?\}/g;

/** Puts values into a message. */
export function filled(message, values, tag) {
  return message.replace(PLACEHOLDER, (whole, name, one, other) => {
    if (!(name in values)) return whole;
    const value = values[name];
    if (one !== undefined) return intl("PluralRules", {}, tag).select(Number(value)) === "one" ? one : other;
    return typeof value === "number" ? intl("NumberFormat", {}, tag).format(value) : String(value);
  });
}

/** The message of this key in the language of the page. */
export function t(key, values = {}) {
  const tag = language.value;
  return filled(dictionaries[tag]?.[key] ?? key, values, tag);
}

/** Whether there is a message of this key: for codes and kinds that a newer server may send. */
export const has = (key) => key in (dictionaries[language.value] ?? {});
