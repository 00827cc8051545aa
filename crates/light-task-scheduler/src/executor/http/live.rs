//! The runs of this process: whom to tell what services say of them, and what was said already.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::task::AbortHandle;

use super::exchange::Site;
use super::job::Found;
use crate::executor::Reporter;
#[cfg(feature = "callbacks")]
use crate::store::Said;
use crate::task::Outcome;
#[cfg(feature = "callbacks")]
use crate::task::Progress;

/// By the name of the execution.
#[derive(Debug, Default)]
pub(super) struct Lives(Mutex<HashMap<String, Live>>);

#[derive(Debug)]
struct Live {
    /// Until the end was told.
    reporter: Option<Reporter>,
    /// To make a start again of which nobody knows whether it was answered.
    site: Arc<Site>,
    /// At which endpoint the job is, and what it is called there, if it was found out.
    job: Option<(String, String)>,
    /// How it ended, if that was reported and not asked for.
    outcome: Option<Outcome>,
    /// The call that is the job.
    call: Option<AbortHandle>,
}

impl Lives {
    /// A run begins, or is taken up again.
    pub(super) fn add(&self, name: &str, reporter: Reporter, site: &Arc<Site>) {
        self.lock(|all| match all.get_mut(name) {
            Some(live) => live.reporter = Some(reporter),
            None => {
                let live = Live { reporter: Some(reporter), site: site.clone(), job: None, outcome: None, call: None };
                all.insert(name.to_owned(), live);
            }
        });
    }

    /// A run is over, and what was known of it is stored.
    pub(super) fn forget(&self, name: &str) {
        if let Some(call) = self.lock(|all| all.remove(name)).and_then(|live| live.call) {
            call.abort();
        }
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.lock(|all| all.contains_key(name))
    }

    pub(super) fn outcome(&self, name: &str) -> Option<Outcome> {
        self.lock(|all| all.get(name)?.outcome.clone())
    }

    /// The start of a run, with its input, if it was made or taken up here.
    pub(super) fn site(&self, name: &str) -> Option<Arc<Site>> {
        self.lock(|all| Some(all.get(name)?.site.clone()))
    }

    /// What the job of a start is called at its endpoint.
    pub(super) fn job(&self, found: &Found) -> Option<String> {
        let named = self.lock(|all| all.get(&found.name())?.job.clone());
        named.filter(|(endpoint, _)| *endpoint == found.endpoint).map(|(_, job)| job)
    }

    pub(super) fn set_job(&self, found: &Found, job: &str) {
        self.lock(|all| {
            if let Some(live) = all.get_mut(&found.name()) {
                live.job = Some((found.endpoint.clone(), job.to_owned()));
            }
        });
    }

    pub(super) fn set_call(&self, name: &str, call: AbortHandle) {
        self.lock(|all| {
            if let Some(live) = all.get_mut(name) {
                live.call = Some(call);
            }
        });
    }

    /// A run has ended: told once, kept until it is forgotten. False: it is not known here.
    pub(super) fn end(&self, name: &str, outcome: Outcome) -> bool {
        let told = self.lock(|all| {
            let live = all.get_mut(name)?;
            let first = live.outcome.get_or_insert(outcome).clone();
            Some(live.reporter.take().map(|reporter| (reporter, first)))
        });
        if let Some(Some((reporter, outcome))) = &told {
            reporter.ended(outcome.clone());
        }
        told.is_some()
    }

    /// A service says something of a run. False: it is not known here.
    #[cfg(feature = "callbacks")]
    pub(super) fn tell(&self, name: &str, said: &Said) -> bool {
        match said {
            Said::Ended(outcome) => self.end(name, outcome.clone()),
            Said::Progress(progress) => self.progress(name, progress),
        }
    }

    #[cfg(feature = "callbacks")]
    fn progress(&self, name: &str, progress: &Progress) -> bool {
        let reporter = self.lock(|all| all.get(name).map(|live| live.reporter.clone()));
        if let Some(Some(reporter)) = &reporter {
            reporter.progress(progress.clone());
        }
        reporter.is_some()
    }

    /// Ends the call that is the job. If that has ended by itself before: how.
    pub(super) fn hang_up(&self, name: &str) -> Option<Outcome> {
        let call = self.lock(|all| all.get(name).and_then(|live| live.call.clone()))?;
        call.abort();
        let before = self.outcome(name);
        if before.is_none() {
            self.end(name, Outcome::Failed(super::exchange::stopped()));
        }
        before
    }

    fn lock<R>(&self, use_it: impl FnOnce(&mut HashMap<String, Live>) -> R) -> R {
        use_it(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
