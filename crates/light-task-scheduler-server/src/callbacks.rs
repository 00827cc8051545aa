//! Where remote services report by themselves: the address that they are told, and the key that it is made with.

use std::path::PathBuf;

use light_task_scheduler::executor::http::{CallbackConfig, Secret};
use reqwest::Url;
use serde::Deserialize;

use crate::api::CALLBACKS_PATH;
use crate::config::{Setting, Sources};
use crate::exit::{Problem, Result};

/// Holds the key, if no flag names a file with it.
const KEY_VARIABLE: &str = "LTS_CALLBACKS_KEY";
const URL_SETTING: &str = "http.callbacks.url";

/// What the command line says.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct CallbackFlags {
    /// The address at which remote services reach this server, so that they report by themselves how their jobs end
    #[arg(long, value_name = "URL")]
    callbacks_url: Option<String>,
    /// A file with the key that the addresses for reports are made with [default: what LTS_CALLBACKS_KEY holds]
    #[arg(long, value_name = "FILE")]
    callbacks_key_file: Option<PathBuf>,
}

/// What the file of settings says: `[http.callbacks]`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct CallbackTable {
    url: Option<String>,
    key: Option<Secret>,
}

/// What holds.
#[derive(Debug)]
pub(crate) struct Callbacks {
    pub(crate) url: Setting<Option<String>>,
    pub(crate) key: Setting<Option<Secret>>,
}

impl CallbackFlags {
    /// Says what holds.
    pub(crate) fn settle(&self, sources: &Sources<'_>, file: &CallbackTable) -> Callbacks {
        let url = sources.text("LTS_CALLBACKS_URL", &self.callbacks_url, &file.url, "");
        let key = match &self.callbacks_key_file {
            Some(path) => Setting::of(Some(Secret::file(path)), "command line"),
            None if sources.has(KEY_VARIABLE) => Setting::of(Some(Secret::env(KEY_VARIABLE)), KEY_VARIABLE),
            None if file.key.is_some() => Setting::of(file.key.clone(), &sources.file()),
            None => Setting::of(None, "default"),
        };
        Callbacks { url: url.map(|text| Some(text).filter(|text| !text.is_empty())), key }
    }
}

impl Callbacks {
    /// What services are told, if they are told anything.
    pub(crate) fn config(&self, base_path: &str) -> Result<Option<CallbackConfig>> {
        match (&self.url.value, &self.key.value) {
            (None, None) => Ok(None),
            (Some(url), Some(key)) => {
                let url = address(url, base_path)
                    .map_err(|why| Problem::usage(format!("{URL_SETTING} ({}): {why}", self.url.origin)))?;
                Ok(Some(CallbackConfig { url, key: key.clone() }))
            }
            (Some(_), None) => Err(Problem::usage(format!(
                "{URL_SETTING} ({}) is set, and http.callbacks.key is not: name a key of at least 16 characters there, by \
                 --callbacks-key-file or in {KEY_VARIABLE}",
                self.url.origin
            ))),
            (None, Some(_)) => Err(Problem::usage(format!(
                "http.callbacks.key ({}) is set, and {URL_SETTING} is not: say at which address services reach this server",
                self.key.origin
            ))),
        }
    }
}

/// Where reports come in.
fn address(text: &str, base_path: &str) -> Result<String, String> {
    let wrong = |why: &str| format!("{text:?} {why}");
    let url = Url::parse(text).map_err(|error| wrong(&format!("is no URL: {error}")))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(wrong("is no address such as https://lts.example.org"));
    }
    if url.query().is_some() || url.fragment().is_some() || !url.username().is_empty() || url.password().is_some() {
        return Err(wrong("has more than a host and a path"));
    }
    let whole = url.as_str().trim_end_matches('/');
    if !url.path().trim_end_matches('/').ends_with(base_path) {
        return Err(wrong(&format!("does not end with the base path {base_path}: nothing would be found there")));
    }
    Ok(format!("{whole}{CALLBACKS_PATH}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_come_in_below_the_address_and_the_base_path() {
        assert_eq!(address("https://lts.example/", "").unwrap(), "https://lts.example/api/v1/callbacks");
        assert_eq!(
            address("http://10.0.0.1:7600/a/lts", "/lts").unwrap(),
            "http://10.0.0.1:7600/a/lts/api/v1/callbacks"
        );
        for (url, why) in [
            ("lts.example", "no URL"),
            ("ftp://lts.example", "no address such as"),
            ("https://lts.example/?a=b", "more than"),
            ("https://me:secret@lts.example", "more than"),
            ("https://lts.example", "base path /lts"),
        ] {
            let error = address(url, "/lts").unwrap_err();
            assert!(error.contains(why), "{url}: {error}");
        }
    }
}
