//! How `lts top` draws what there is to show.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::Line;
use ratatui::widgets::{Block, Borders, Paragraph, Row, Sparkline, Table, TableState};
use serde_json::Value;

use super::state::{App, Pane};
use crate::cli::ls::summary;
use crate::cli::queue::limits;
use crate::cli::watch::STATES;
use crate::output::{text, time_text};

/// What keys do.
const KEYS: &str = "tab pane  ↑↓ select  p pause/resume  c cancel  r retry  / filter  q quit";
/// Rates are drawn as whole numbers: so many for one per second.
const RATE_SCALE: f64 = 10.0;
/// How many letters a bar of progress has.
const BAR_LETTERS: usize = 10;

/// Draws it.
pub(super) fn render(frame: &mut Frame<'_>, app: &App) {
    let rows = [
        Constraint::Length(2),
        Constraint::Length(4),
        Constraint::Fill(1),
        Constraint::Fill(1),
        Constraint::Fill(1),
        Constraint::Length(1),
    ];
    let [head, curve, queues, running, failed, foot] = Layout::vertical(rows).areas(frame.area());
    frame.render_widget(Paragraph::new(vec![title(app), totals(app)]), head);
    render_curve(frame, app, curve);
    let [queue_rows, running_rows, failed_rows] = rows_of(app);
    let wide = Constraint::Fill(1);
    let fixed = Constraint::Length;
    pane(
        frame,
        app,
        Pane::Queues,
        queues,
        &["QUEUE", "WAITING", "SCHEDULED", "RUNNING", "FAILED", "LIMITS"],
        queue_rows,
        &[wide, fixed(9), fixed(9), fixed(9), fixed(9), wide],
    );
    pane(
        frame,
        app,
        Pane::Running,
        running,
        &["RUNNING", "QUEUE", "TRY", "PROGRESS", "COMMAND"],
        running_rows,
        &[fixed(36), fixed(16), fixed(3), fixed(22), wide],
    );
    pane(
        frame,
        app,
        Pane::Failed,
        failed,
        &["FAILED", "QUEUE", "AT", "WHY"],
        failed_rows,
        &[fixed(36), fixed(16), fixed(20), wide],
    );
    frame.render_widget(Paragraph::new(foot_line(app)), foot);
}

fn title(app: &App) -> Line<'static> {
    let filter = if app.filter().is_empty() { String::new() } else { format!("  filter: {}", app.filter()) };
    let now = time_text(&app.seen.stats["now"]);
    Line::styled(format!("lts top  {}  {now}{filter}", app.place), Style::new().add_modifier(Modifier::BOLD))
}

fn totals(app: &App) -> Line<'static> {
    let count = |state: &str| format!("{state} {}", text(&app.seen.stats["totals"][state]));
    Line::raw(STATES.map(count).join("  "))
}

fn render_curve(frame: &mut Frame<'_>, app: &App, area: Rect) {
    let now = app.rates.back().copied().unwrap_or_default();
    let block = Block::new().borders(Borders::TOP).title(format!(" ended per second: {now:.1} "));
    // The newest are at the right end.
    let shown = app.rates.len().saturating_sub(usize::from(area.width));
    let data: Vec<u64> = app.rates.iter().skip(shown).map(|rate| (rate * RATE_SCALE).round() as u64).collect();
    frame.render_widget(Sparkline::default().block(block).data(data), area);
}

/// The rows of each pane.
fn rows_of(app: &App) -> [Vec<Vec<String>>; 3] {
    let queue = |queue: &&Value| {
        let count = |state: &str| text(&queue["counts"][state]);
        let counts = [count("waiting"), count("scheduled"), count("running"), count("failed")];
        [&[text(&queue["name"])], &counts[..], &[limits(queue)]].concat()
    };
    let running = |task: &Value| {
        let phase = text(&task["phase"]);
        let progress = if phase == "running" { progress(&task["progress"]) } else { phase };
        vec![text(&task["id"]), text(&task["queue"]), text(&task["attempt"]), progress, summary(task)]
    };
    let failed = |task: &Value| {
        let why = crate::output::shortened(&text(&task["failure"]["message"]), usize::MAX);
        vec![text(&task["id"]), text(&task["queue"]), time_text(&task["finished_at"]), why]
    };
    [
        app.queues().iter().map(queue).collect(),
        app.seen.running.iter().map(running).collect(),
        app.seen.failed.iter().map(failed).collect(),
    ]
}

/// How far a run has come, as a bar where that can be told.
fn progress(progress: &Value) -> String {
    let number = |field: &str| progress[field].as_f64();
    match (number("done"), number("total")) {
        (Some(done), Some(total)) if total > 0.0 => {
            let part = (done / total).clamp(0.0, 1.0);
            let full = (part * BAR_LETTERS as f64) as usize;
            format!("{}{} {:.0}%", "█".repeat(full), "░".repeat(BAR_LETTERS - full), part * 100.0)
        }
        (Some(done), _) => done.to_string(),
        _ => progress["message"].as_str().map(crate::output::printable).unwrap_or_default(),
    }
}

#[allow(clippy::too_many_arguments, reason = "a pane is its place, its heading, its rows and its widths")]
fn pane(
    frame: &mut Frame<'_>,
    app: &App,
    pane: Pane,
    area: Rect,
    heading: &[&'static str],
    rows: Vec<Vec<String>>,
    widths: &[Constraint],
) {
    let active = app.pane == pane;
    let style = if active { Style::new().fg(Color::Cyan) } else { Style::new() };
    let selected = (!rows.is_empty()).then(|| app.selected(pane));
    let heading = Row::new(heading.to_vec()).style(style.add_modifier(Modifier::BOLD));
    let mut table = Table::new(rows.into_iter().map(Row::new), widths.to_vec())
        .header(heading)
        .block(Block::new().borders(Borders::TOP).border_style(style));
    if active {
        table = table.row_highlight_style(Style::new().add_modifier(Modifier::REVERSED));
    }
    frame.render_stateful_widget(table, area, &mut TableState::new().with_selected(selected));
}

fn foot_line(app: &App) -> Line<'static> {
    if let Some(typed) = &app.typed {
        return Line::raw(format!("/{typed}▏  enter: filter so, esc: as before"));
    }
    if let Some(step) = &app.asked {
        return Line::styled(format!("{}? y/n", step.in_words()), Style::new().fg(Color::Yellow));
    }
    if !app.said.is_empty() {
        return Line::raw(crate::output::printable(&app.said));
    }
    Line::styled(KEYS, Style::new().add_modifier(Modifier::DIM))
}

#[cfg(test)]
pub(super) mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use serde_json::json;

    use super::super::state::Seen;
    use super::*;

    /// Something of everything.
    pub(in crate::cli::top) fn busy(production: bool) -> App {
        let mut app = App::new("http://h", production);
        let queue = |name: &str, paused: bool, done: u64| {
            json!({ "name": name, "counts": { "waiting": 3, "succeeded": done },
                "settings": { "concurrency": 2, "rate": null, "paused": paused } })
        };
        let stats = |second: u32, done: u64| {
            json!({ "now": format!("2026-11-26T10:00:{second:02}Z"),
                "totals": { "waiting": 6, "succeeded": done, "failed": 0, "cancelled": 0 },
                "queues": [queue("audio", false, done), queue("over", false, 1), queue("video", true, 0)] })
        };
        let over = |mut stats: Value| {
            stats["queues"][1]["counts"]["waiting"] = 0.into();
            stats
        };
        let running = vec![json!({ "id": "run-1", "queue": "audio", "phase": "running", "attempt": 1,
            "summary": "encode\u{1b}[2J", "progress": { "done": 3, "total": 6 } })];
        let failed = vec![json!({ "id": "bad-1", "queue": "video", "phase": "failed",
            "failure": { "message": "no space\nleft" }, "finished_at": "2026-11-26T09:59:00.5Z" })];
        app.take(Ok(Seen { stats: over(stats(0, 10)), ..Seen::default() }));
        app.take(Ok(Seen { stats: over(stats(2, 15)), running, failed, said: None }));
        app
    }

    fn drawn(app: &App, width: u16, height: u16) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| render(frame, app)).unwrap();
        let buffer = terminal.backend().buffer().clone();
        let row = |y| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>();
        (0..height).map(row).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn everything_that_matters_is_drawn() {
        let screen = drawn(&busy(false), 120, 30);
        for shown in [
            "http://h",
            "2026-11-26T10:00:02Z",
            "succeeded 15",
            "ended per second: 2.5",
            "2 at once, paused",
            "█████░░░░░ 50%",
            "no space left",
            "q quit",
        ] {
            assert!(screen.contains(shown), "{shown} is missing in\n{screen}");
        }
        assert!(!screen.contains("over"), "a queue with nothing to do is noise\n{screen}");
        assert!(!screen.contains('\u{1b}'), "what a task is called must not steer the terminal");
    }

    #[test]
    fn what_is_asked_typed_or_said_takes_the_place_of_the_keys() {
        let mut app = busy(false);
        app.said = "video is paused".to_owned();
        assert!(drawn(&app, 100, 24).contains("video is paused"));
        app.asked = Some(super::super::state::Step::Cancel("run-1".into()));
        assert!(drawn(&app, 100, 24).contains("cancel run-1? y/n"));
        app.typed = Some("queue:v".to_owned());
        assert!(drawn(&app, 100, 24).contains("/queue:v"));
    }

    #[test]
    fn a_small_terminal_is_no_reason_to_fail() {
        for (width, height) in [(1, 1), (10, 5), (40, 12)] {
            drawn(&busy(false), width, height);
        }
    }
}
