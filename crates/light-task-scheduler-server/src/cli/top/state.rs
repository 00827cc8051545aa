//! What `lts top` shows, and what keys do to it. Pure: nothing is asked or drawn here.

use std::collections::VecDeque;

use light_task_scheduler::Timestamp;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use serde_json::Value;

use crate::cli::queue::is_of_interest;

/// How many rates are kept, for the curve.
pub(super) const RATES_KEPT: usize = 120;

/// A part of the screen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pane {
    Queues,
    Running,
    Failed,
}

impl Pane {
    pub(super) const ALL: [Pane; 3] = [Pane::Queues, Pane::Running, Pane::Failed];

    fn next(self) -> Pane {
        Pane::ALL[(self as usize + 1) % Pane::ALL.len()]
    }
}

/// What is to be done next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    Quit,
    Look,
    Pause(String),
    Resume(String),
    Cancel(String),
    Retry(String),
}

impl Step {
    /// What it is, to ask about.
    pub(super) fn in_words(&self) -> String {
        match self {
            Step::Quit => "quit".to_owned(),
            Step::Look => "look".to_owned(),
            Step::Pause(queue) => format!("pause {queue}"),
            Step::Resume(queue) => format!("resume {queue}"),
            Step::Cancel(id) => format!("cancel {id}"),
            Step::Retry(id) => format!("retry {id}"),
        }
    }
}

/// What a look has found.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) stats: Value,
    pub(super) running: Vec<Value>,
    pub(super) failed: Vec<Value>,
    /// What was done before the look.
    pub(super) said: Option<String>,
}

/// Everything that is shown.
#[derive(Debug)]
pub(super) struct App {
    /// Where it comes from.
    pub(super) place: String,
    production: bool,
    pub(super) pane: Pane,
    /// What is selected, pane by pane.
    selected: [usize; 3],
    filter: String,
    /// What is typed as a filter, until it holds.
    pub(super) typed: Option<String>,
    /// What is done once it is agreed to.
    pub(super) asked: Option<Step>,
    /// What was done, or what went wrong.
    pub(super) said: String,
    pub(super) seen: Seen,
    /// Ended tasks per second, oldest first.
    pub(super) rates: VecDeque<f64>,
    /// When it was counted last, and how many had ended.
    counted: Option<(Timestamp, u64)>,
}

impl App {
    pub(super) fn new(place: &str, production: bool) -> Self {
        App {
            place: place.to_owned(),
            production,
            pane: Pane::Queues,
            selected: [0; 3],
            filter: String::new(),
            typed: None,
            asked: None,
            said: String::new(),
            seen: Seen::default(),
            rates: VecDeque::new(),
            counted: None,
        }
    }

    /// The filter that holds.
    pub(super) fn filter(&self) -> &str {
        &self.filter
    }

    /// The queues that are shown: those with something to do, else all.
    pub(super) fn queues(&self) -> Vec<&Value> {
        let all = self.seen.stats["queues"].as_array().map(Vec::as_slice).unwrap_or_default();
        let shown: Vec<&Value> = all.iter().filter(|queue| is_of_interest(queue)).collect();
        if shown.is_empty() { all.iter().collect() } else { shown }
    }

    fn rows(&self, pane: Pane) -> usize {
        match pane {
            Pane::Queues => self.queues().len(),
            Pane::Running => self.seen.running.len(),
            Pane::Failed => self.seen.failed.len(),
        }
    }

    /// Which row of a pane is selected.
    pub(super) fn selected(&self, pane: Pane) -> usize {
        self.selected[pane as usize].min(self.rows(pane).saturating_sub(1))
    }

    /// Takes up what a look has found, or why it found nothing.
    pub(super) fn take(&mut self, look: Result<Seen, String>) {
        let seen = match look {
            Ok(seen) => seen,
            Err(why) => {
                // What was seen before stays on the screen.
                self.said = why;
                return;
            }
        };
        match &seen.said {
            Some(said) => self.said.clone_from(said),
            None if self.said.starts_with("cannot reach") => self.said.clear(),
            None => {}
        }
        let ended: u64 =
            ["succeeded", "failed", "cancelled"].iter().filter_map(|state| seen.stats["totals"][state].as_u64()).sum();
        if let Some(now) = seen.stats["now"].as_str().and_then(|now| now.parse::<Timestamp>().ok()) {
            if let Some((at, before)) = self.counted {
                let seconds = now.since(at).as_secs_f64();
                if seconds > 0.0 {
                    self.rates.push_back(ended.saturating_sub(before) as f64 / seconds);
                }
            }
            self.counted = Some((now, ended));
        }
        while self.rates.len() > RATES_KEPT {
            self.rates.pop_front();
        }
        self.seen = seen;
    }

    /// What a key does.
    pub(super) fn press(&mut self, key: KeyEvent) -> Option<Step> {
        if key.modifiers.contains(KeyModifiers::CONTROL) && key.code == KeyCode::Char('c') {
            return Some(Step::Quit);
        }
        if let Some(step) = self.asked.take() {
            let agreed = matches!(key.code, KeyCode::Char('y' | 'Y') | KeyCode::Enter);
            self.said = if agreed { String::new() } else { format!("not done: {}", step.in_words()) };
            return agreed.then_some(step);
        }
        if self.typed.is_some() {
            return self.type_filter(key.code);
        }
        match key.code {
            KeyCode::Char('q') | KeyCode::Esc => Some(Step::Quit),
            KeyCode::Tab => {
                self.pane = self.pane.next();
                None
            }
            KeyCode::BackTab => {
                self.pane = self.pane.next().next();
                None
            }
            KeyCode::Down | KeyCode::Char('j') => self.select(1),
            KeyCode::Up | KeyCode::Char('k') => self.select(-1),
            KeyCode::Char('/') => {
                self.typed = Some(self.filter.clone());
                None
            }
            KeyCode::Char('p') => self.queue_step(),
            KeyCode::Char('c') => {
                // A key that is hit by mistake must stop nothing.
                self.asked = self.id(Pane::Running).map(Step::Cancel);
                self.none_selected("a running task");
                None
            }
            KeyCode::Char('r') => {
                let step = self.id(Pane::Failed).map(Step::Retry);
                self.agreed(step, "a failed task")
            }
            _ => None,
        }
    }

    fn none_selected(&mut self, what: &str) {
        if self.asked.is_none() {
            self.said = format!("{what} must be selected; tab goes to its pane");
        }
    }

    /// In production everything is asked about first.
    fn agreed(&mut self, step: Option<Step>, what: &str) -> Option<Step> {
        if step.is_none() {
            self.none_selected(what);
        } else if self.production {
            self.asked = step;
            return None;
        }
        step
    }

    fn queue_step(&mut self) -> Option<Step> {
        let queues = self.queues();
        let queue = queues.get(self.selected(Pane::Queues)).filter(|_| self.pane == Pane::Queues);
        let step = queue.and_then(|queue| {
            let name = queue["name"].as_str()?.to_owned();
            Some(if queue["settings"]["paused"] == true { Step::Resume(name) } else { Step::Pause(name) })
        });
        self.agreed(step, "a queue")
    }

    /// The id of the task that is selected, if this is its pane.
    fn id(&self, pane: Pane) -> Option<String> {
        let tasks = if pane == Pane::Running { &self.seen.running } else { &self.seen.failed };
        let task = tasks.get(self.selected(pane)).filter(|_| self.pane == pane)?;
        task["id"].as_str().map(str::to_owned)
    }

    fn select(&mut self, by: isize) -> Option<Step> {
        let last = self.rows(self.pane).saturating_sub(1);
        let now = self.selected(self.pane).saturating_add_signed(by).min(last);
        self.selected[self.pane as usize] = now;
        None
    }

    fn type_filter(&mut self, key: KeyCode) -> Option<Step> {
        let typed = self.typed.as_mut()?;
        match key {
            KeyCode::Enter => {
                self.filter = self.typed.take().unwrap_or_default();
                self.said.clear();
                return Some(Step::Look);
            }
            KeyCode::Esc => self.typed = None,
            KeyCode::Backspace => {
                typed.pop();
            }
            KeyCode::Char(letter) => typed.push(letter),
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::super::view::tests::busy;
    use super::*;

    fn press(app: &mut App, keys: &str) -> Option<Step> {
        let key = |letter| match letter {
            '\t' => KeyCode::Tab,
            '\n' => KeyCode::Enter,
            '\x08' => KeyCode::Backspace,
            letter => KeyCode::Char(letter),
        };
        keys.chars().map(|letter| app.press(KeyEvent::new(key(letter), KeyModifiers::NONE))).last().flatten()
    }

    #[test]
    fn a_queue_is_paused_or_resumed_as_it_stands() {
        let mut app = busy(false);
        assert_eq!(press(&mut app, "p"), Some(Step::Pause("audio".into())));
        assert_eq!(press(&mut app, "jp"), Some(Step::Resume("video".into())));
        assert_eq!(press(&mut app, "jjjp"), Some(Step::Resume("video".into())), "the last row is the last");
        assert_eq!(press(&mut app, "\tp"), None, "no queue is selected there");
        assert!(app.said.contains("a queue must be selected"));
    }

    #[test]
    fn a_cancellation_is_asked_about_and_a_retry_only_in_production() {
        let mut app = busy(false);
        assert_eq!(press(&mut app, "\tc"), None);
        assert_eq!(press(&mut app, "n"), None);
        assert_eq!(app.said, "not done: cancel run-1");
        assert_eq!(press(&mut app, "cy"), Some(Step::Cancel("run-1".into())));
        assert_eq!(press(&mut app, "\tr"), Some(Step::Retry("bad-1".into())));
        let mut app = busy(true);
        assert_eq!(press(&mut app, "\t\tr"), None);
        assert_eq!(press(&mut app, "y"), Some(Step::Retry("bad-1".into())));
    }

    #[test]
    fn a_filter_holds_once_it_is_whole() {
        let mut app = busy(false);
        assert_eq!(press(&mut app, "/queue:q"), None);
        assert_eq!(app.filter(), "");
        assert_eq!(press(&mut app, "\x08x\n"), Some(Step::Look));
        assert_eq!(app.filter(), "queue:x");
        assert_eq!(press(&mut app, "q"), Some(Step::Quit));
    }

    #[test]
    fn rates_are_what_ended_between_two_looks() {
        let mut app = busy(false);
        let look = |second: u32, done: u64| Seen {
            stats: serde_json::json!({ "now": format!("2026-11-26T00:00:{second:02}Z"),
                "totals": { "succeeded": done, "failed": 1 } }),
            ..Seen::default()
        };
        app.counted = None;
        app.rates.clear();
        for (second, done) in [(0, 0), (2, 20), (3, 25), (3, 25)] {
            app.take(Ok(look(second, done)));
        }
        assert_eq!(app.rates, [10.0, 5.0]);
        app.take(Err("cannot reach it".into()));
        assert_eq!((app.said.as_str(), app.rates.len()), ("cannot reach it", 2));
        app.take(Ok(look(4, 25)));
        assert_eq!(app.said, "", "it is reached again");
    }
}
