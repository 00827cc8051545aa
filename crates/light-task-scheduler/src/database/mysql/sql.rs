//! Statements from templates: a prefix for the tables, and parts that are repeated.
//!
//! In a template `{p}` stands for the prefix of all tables. Of `{*part*}` there are as many as asked for, with
//! commas between: `IN ({*?*})` is a list, `VALUES {*(?, ?)*}` are rows. Of `{+(SELECT ...)+}` too, with
//! `UNION ALL` between.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

/// Most values in one list: a power of two.
pub(crate) const LIST_MAX: usize = 512;
/// Most rows in one statement: what many calls have, so that one statement is enough for them.
const ROWS_MAX: usize = 1_000;
/// Most bytes of values in one statement (4 MiB), unless one row has more.
pub(crate) const STATEMENT_BYTES_MAX: usize = 4 << 20;

const PREFIX: &str = "{p}";
/// What begins and ends a repeated part, and what is written between two.
const REPEATED: [(&str, &str, &str); 2] = [("{*", "*}", ", "), ("{+", "+}", " UNION ALL ")];

/// Statements that were made from templates.
#[derive(Debug, Default)]
pub(crate) struct Statements {
    known: RwLock<HashMap<(&'static str, usize), Arc<str>>>,
}

impl Statements {
    /// The statement of a template with so many of the repeated parts.
    pub(crate) fn get(&self, template: &'static str, prefix: &str, repeated: usize) -> Arc<str> {
        let key = (template, repeated);
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        known.unwrap_or_else(|| {
            let sql: Arc<str> = with_prefix(&with_repeated(template, repeated), prefix).into();
            self.known.write().unwrap_or_else(PoisonError::into_inner).insert(key, Arc::clone(&sql));
            sql
        })
    }
}

/// Writes the prefix into a statement.
pub(crate) fn with_prefix(sql: &str, prefix: &str) -> String {
    sql.replace(PREFIX, prefix)
}

/// Repeats the parts that are to be repeated.
pub(crate) fn with_repeated(template: &str, times: usize) -> String {
    let mut sql = template.to_owned();
    for (begin, end, between) in REPEATED {
        while let Some((before, (part, after))) =
            sql.split_once(begin).and_then(|(before, after)| Some((before, after.split_once(end)?)))
        {
            sql = format!("{before}{}{after}", vec![part; times].join(between));
        }
    }
    sql
}

/// `items`, each statement's share after the other: as many as it may have, with no more bytes than it may have, but
/// one at least. In a few sizes only, the largest and powers of two, so that each connection keeps all its statements prepared:
/// one that is prepared for a single use is closed after it, which the server does not answer, and what is sent next
/// then waits for the acknowledgement that TCP delays (40 ms; sqlx 0.9 has no `TCP_NODELAY`).
pub(crate) fn parts<T>(items: &[T], bytes: impl Fn(&T) -> usize) -> impl Iterator<Item = &[T]> {
    let mut rest = items;
    std::iter::from_fn(move || {
        let mut sum = 0_usize;
        let fits = |item: &&T| {
            sum = sum.saturating_add(bytes(item));
            sum <= STATEMENT_BYTES_MAX
        };
        let fitting = rest.iter().take(ROWS_MAX).take_while(fits).count().max(1);
        let size = if fitting == ROWS_MAX { ROWS_MAX } else { 1 << fitting.ilog2() };
        let (part, others) = rest.split_at_checked(size)?;
        rest = others;
        Some(part)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_repeated() {
        assert_eq!(with_repeated("a IN ({*?*}) b VALUES {*(?, ?)*}", 2), "a IN (?, ?) b VALUES (?, ?), (?, ?)");
        assert_eq!(with_repeated("none", 3), "none");
        assert_eq!(with_repeated("{+(SELECT ?)+}", 2), "(SELECT ?) UNION ALL (SELECT ?)");
    }

    #[test]
    fn a_statement_takes_one_row_at_least_and_never_more_than_it_may_hold() {
        let sizes = |items: &[usize]| parts(items, |bytes| *bytes).map(<[usize]>::len).collect::<Vec<_>>();
        assert_eq!(sizes(&[1; 999]), [512, 256, 128, 64, 32, 4, 2, 1]);
        assert_eq!(sizes(&[1; 2_001]), [ROWS_MAX, ROWS_MAX, 1]);
        assert_eq!(sizes(&[STATEMENT_BYTES_MAX + 1; 2]), [1, 1]);
        assert_eq!(sizes(&[STATEMENT_BYTES_MAX / 3; 5]), [2, 2, 1]);
        assert_eq!(sizes(&[]), [0; 0]);
    }
}
