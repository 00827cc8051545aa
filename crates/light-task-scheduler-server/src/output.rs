//! Everything that is printed: data on stdout, everything else on stderr.

use std::io::{self, ErrorKind, IsTerminal, Write};

use clap::{Args, ValueEnum};
use light_task_scheduler::Timestamp;
use serde::Serialize;
use serde_json::Value;

use crate::exit::{BROKEN_PIPE, ERROR, Problem, Result};

/// Widest text of a table's last column, in characters, on a terminal.
const LAST_COLUMN_CHARS_MAX: usize = 80;

/// Prints a line of data.
pub(crate) fn line(text: &str) -> Result<()> {
    bytes(format!("{text}\n").as_bytes())
}

/// Prints data as it is.
pub(crate) fn bytes(data: &[u8]) -> Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(data).and_then(|()| stdout.flush()).map_err(unwritten)
}

/// Prints a value as one line of JSON.
pub(crate) fn json<T: Serialize>(value: &T) -> Result<()> {
    line(&json_text(value)?)
}

/// A value as one line of JSON.
pub(crate) fn json_text<T: Serialize>(value: &T) -> Result<String> {
    serde_json::to_string(value).map_err(|error| Problem::new(ERROR, format!("cannot be written as JSON: {error}")))
}

/// Tells the user something that is no data. Nobody listening is no reason to fail.
pub(crate) fn note(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Passes on what a command complains.
pub(crate) fn complaint(data: &[u8]) {
    let mut stderr = io::stderr().lock();
    let _ = stderr.write_all(data).and_then(|()| stderr.flush());
}

fn unwritten(error: io::Error) -> Problem {
    match error.kind() {
        ErrorKind::BrokenPipe => Problem::new(BROKEN_PIPE, ""),
        _ => Problem::new(ERROR, format!("cannot write to stdout: {error}")),
    }
}

/// Prints rows under a heading, columns aligned; the last column is cut to fit a terminal.
pub(crate) fn table(heading: &[&str], rows: &[Vec<String>]) -> Result<()> {
    let cut = io::stdout().is_terminal();
    let mut widths: Vec<usize> = heading.iter().map(|name| name.len()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    let heading = heading.iter().map(|name| (*name).to_owned()).collect();
    for row in std::iter::once(&heading).chain(rows) {
        let mut printed = String::new();
        for (place, (cell, width)) in row.iter().zip(&widths).enumerate() {
            if place + 1 < row.len() {
                printed.push_str(&format!("{cell:<width$}  "));
            } else {
                printed.push_str(&if cut { shortened(cell, LAST_COLUMN_CHARS_MAX) } else { cell.clone() });
            }
        }
        text.push_str(printed.trim_end());
        text.push('\n');
    }
    bytes(text.as_bytes())
}

/// How data is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Form {
    /// For people: columns under a heading, or a line for each thing that is known
    Table,
    /// The same with more columns
    Wide,
    /// One JSON document
    Json,
    /// A JSON object a line
    Jsonl,
    /// Only ids or names, one a line
    Name,
}

/// How a command is asked to print.
#[derive(Debug, Clone, Copy, Default, Args)]
pub(crate) struct FormArgs {
    /// How to print: table, wide, json, jsonl (an object a line), or name (ids or names only)
    #[arg(short = 'o', long = "output", value_name = "FORM", value_enum, hide_possible_values = true)]
    output: Option<Form>,
    /// Print JSON, an object a line; the same as -o jsonl
    #[arg(long, conflicts_with = "output")]
    json: bool,
}

impl FormArgs {
    /// What holds.
    pub(crate) fn form(&self) -> Form {
        if self.json { Form::Jsonl } else { self.output.unwrap_or(Form::Table) }
    }
}

/// How one cell is made of a thing.
type Cell = fn(&Value) -> String;

/// How things of one sort are listed.
#[derive(Debug)]
pub(crate) struct Listing {
    name: &'static str,
    columns: Vec<(&'static str, bool, Cell)>,
}

impl Listing {
    /// Nothing yet; this field is what `-o name` prints.
    pub(crate) fn new(name: &'static str) -> Self {
        Listing { name, columns: Vec::new() }
    }

    /// One more column.
    pub(crate) fn column(mut self, heading: &'static str, cell: Cell) -> Self {
        self.columns.push((heading, false, cell));
        self
    }

    /// One more column, shown only where more are asked for.
    pub(crate) fn wide(mut self, heading: &'static str, cell: Cell) -> Self {
        self.columns.push((heading, true, cell));
        self
    }

    /// Prints things.
    pub(crate) fn print(&self, form: Form, items: &[Value]) -> Result<()> {
        match form {
            Form::Json => line(&pretty(&items)?),
            Form::Jsonl => items.iter().try_for_each(json),
            Form::Name => items.iter().try_for_each(|item| line(&text(&item[self.name]))),
            Form::Table | Form::Wide => {
                let shown = self.columns.iter().filter(|(_, wide, _)| form == Form::Wide || !wide);
                let shown: Vec<_> = shown.collect();
                let heading: Vec<&str> = shown.iter().map(|(heading, ..)| *heading).collect();
                let row = |item| shown.iter().map(|(_, _, cell)| cell(item)).collect::<Vec<_>>();
                table(&heading, &items.iter().map(row).collect::<Vec<_>>())
            }
        }
    }
}

/// Prints one thing: as JSON, its name, or these lines.
pub(crate) fn one(form: Form, name: &str, value: &Value, lines: impl FnOnce() -> Vec<(String, String)>) -> Result<()> {
    /// So wide are the names of lines at least.
    const NAME_CHARS_MIN: usize = 11;
    match form {
        Form::Json => line(&pretty(value)?),
        Form::Jsonl => json(value),
        Form::Name => line(&text(&value[name])),
        Form::Table | Form::Wide => {
            let lines = lines();
            let longest = lines.iter().map(|(name, _)| name.chars().count() + 2).max().unwrap_or_default();
            let width = longest.max(NAME_CHARS_MIN);
            lines.into_iter().try_for_each(|(name, value)| line(&format!("{:<width$}{value}", format!("{name}:"))))
        }
    }
}

fn pretty<T: Serialize>(value: &T) -> Result<String> {
    serde_json::to_string_pretty(value)
        .map_err(|error| Problem::new(ERROR, format!("cannot be written as JSON: {error}")))
}

/// A value of JSON for people: text without quotes, and `-` for nothing.
pub(crate) fn text(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => printable(text),
        other => other.to_string(),
    }
}

/// A time that is JSON, for people: to the second.
pub(crate) fn time_text(value: &Value) -> String {
    time(value.as_str().and_then(|text| text.parse().ok()))
}

/// Without what would steer a terminal: texts of tasks may come from anybody.
pub(crate) fn printable(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() && letter != '\n' { '\u{fffd}' } else { letter }).collect()
}

/// At most so many characters on one line.
pub(crate) fn shortened(text: &str, chars_max: usize) -> String {
    let line = text.replace(['\n', '\t', '\r'], " ");
    if line.chars().count() <= chars_max {
        return line;
    }
    line.chars().take(chars_max - 1).chain(['…']).collect()
}

/// A time for people: to the second.
pub(crate) fn time(time: Option<Timestamp>) -> String {
    let Some(time) = time else { return "-".to_owned() };
    match time.to_string().split_once('.') {
        Some((seconds, _)) => format!("{seconds}Z"),
        None => time.to_string(),
    }
}

/// What of the known words is most like the unknown one, if any is.
pub(crate) fn did_you_mean<'a>(unknown: &str, known: &[&'a str]) -> Option<&'a str> {
    /// More different letters than this is no typing error.
    const EDITS_MAX: usize = 3;
    let distance = |word: &&&str| edits(&unknown.to_lowercase(), word);
    known.iter().min_by_key(distance).filter(|word| distance(word) <= EDITS_MAX.min(word.len() / 2)).copied()
}

/// How many letters must be changed, added or removed to make one word of the other (Levenshtein).
fn edits(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in to.iter().enumerate() {
            let changed = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[to.len()]
}

/// Bytes as hexadecimal digits. A batch of a million lines writes as many: no allocation a byte.
pub(crate) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 0xf]);
    digits.map(|digit| char::from(DIGITS[usize::from(digit)])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_typing_error_is_recognised_and_nonsense_is_not() {
        let known = ["argv", "timeout", "retries", "priority"];
        assert_eq!(did_you_mean("argvv", &known), Some("argv"));
        assert_eq!(did_you_mean("TimeOut", &known), Some("timeout"));
        assert_eq!(did_you_mean("prioritty", &known), Some("priority"));
        assert_eq!(did_you_mean("colour", &known), None);
        assert_eq!(did_you_mean("x", &known), None);
    }

    #[test]
    fn times_are_shown_to_the_second() {
        assert_eq!(time(Some(Timestamp::from_micros(1_700_000_000_123_456))), "2023-11-14T22:13:20Z");
        assert_eq!(time(None), "-");
    }

    #[test]
    fn long_texts_are_cut_at_a_character() {
        assert_eq!(shortened("äöü\nx", 10), "äöü x");
        assert_eq!(shortened("äöüäöü", 4), "äöü…");
    }
}
