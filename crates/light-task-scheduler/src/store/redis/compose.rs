//! Makes the text of a script from the files that it needs.
//!
//! Lua makes every function of a script anew at each call, and finds each outer name that it takes among all those that
//! were taken before: for a script about a single task that would be more than its own work. Therefore comments go, a
//! constant (a name in capitals for a number or a text) stands where its name was, what nobody mentions is left out, and
//! each section is a function in the one before, as the search for a name ends at such a border. A file is a section; a
//! line that begins with [`BORDER`] begins another.
//!
//! It knows no more of Lua than these files need. A top-level statement begins at the start of a line, its further lines
//! are indented or close a block. No function may take more than 60 outer names.

use std::collections::{HashMap, HashSet};

/// Begins a section within a file.
const BORDER: &str = "---";

/// The words, texts and signs of a line, without its comment.
fn tokens(line: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut rest = line;
    while let Some(first) = rest.chars().next() {
        if rest.starts_with("--") {
            break;
        }
        let is_word = |c: char| c.is_alphanumeric() || c == '_';
        let size = match first {
            '\'' => quoted(rest),
            c if is_word(c) => rest.find(|c| !is_word(c)).unwrap_or(rest.len()),
            c => c.len_utf8(),
        };
        let (token, after) = rest.split_at(size);
        found.push(token);
        rest = after;
    }
    found
}

/// The size of the text that a line begins with.
fn quoted(line: &str) -> usize {
    let mut escaped = false;
    let end = line.char_indices().skip(1).find(|(_, c)| {
        let ends = *c == '\'' && !escaped;
        escaped = *c == '\\' && !escaped;
        ends
    });
    end.map_or(line.len(), |(at, _)| at + 1)
}

fn is_name(token: &str) -> bool {
    token.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// The names that a top-level statement makes; none: it does something.
fn defined(statement: &str) -> Vec<&str> {
    let Some(local) = statement.strip_prefix("local ") else { return Vec::new() };
    let names = local.strip_prefix("function ").map_or_else(
        || local.split(['=', '\n']).next().unwrap_or_default(),
        |function| function.split('(').next().unwrap_or_default(),
    );
    names.split(',').map(str::trim).collect()
}

/// The constants that a statement makes, with their literals; none if it makes anything else.
fn constants(statement: &str) -> Option<Vec<(String, String)>> {
    let names = defined(statement);
    let (_, values) = statement.split_once('=')?;
    let values: Vec<_> = values.split(',').map(str::trim).collect();
    let is_constant = |name: &&str| name.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_');
    let is_literal =
        |value: &&str| value.parse::<i64>().is_ok() || quoted(value) == value.len() && value.starts_with('\'');
    let all = names.len() == values.len() && names.iter().all(is_constant) && values.iter().all(is_literal);
    all.then(|| names.iter().zip(values).map(|(name, value)| ((*name).to_owned(), value.to_owned())).collect())
}

/// A line with literals for the names of constants. A field may have such a name too.
fn with_literals(line: &str, literals: &HashMap<String, String>) -> String {
    let tokens = tokens(line);
    let is_field = |at: usize| {
        let mut after = tokens[at + 1..].iter().filter(|token| **token != " ");
        at > 0 && tokens[at - 1] == "." || after.next() == Some(&"=") && after.next() != Some(&"=")
    };
    let known = |(at, token): (usize, &&str)| match literals.get(*token) {
        // `--` begins a comment.
        Some(literal) if !is_field(at) && literal.starts_with('-') => format!("({literal})"),
        Some(literal) if !is_field(at) => literal.clone(),
        _ => (*token).to_owned(),
    };
    let line: String = tokens.iter().enumerate().map(known).collect();
    line.trim_end().to_owned()
}

/// The top-level statements of a file; an empty one is a border.
fn statements(file: &str, literals: &mut HashMap<String, String>) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for line in file.lines() {
        if line.starts_with(BORDER) {
            found.push(String::new());
            continue;
        }
        let line = with_literals(line, literals);
        let goes_on =
            !line.starts_with(char::is_alphabetic) || ["end", "else"].iter().any(|word| line.starts_with(word));
        match found.last_mut().filter(|_| goes_on) {
            Some(_) if line.is_empty() => {}
            Some(statement) => {
                statement.push('\n');
                statement.push_str(&line);
            }
            None if line.is_empty() => {}
            None => match constants(&line) {
                Some(made) => literals.extend(made),
                None => found.push(line),
            },
        }
    }
    found
}

/// The script of these files.
pub(super) fn compose(files: &[&str]) -> String {
    let mut literals = HashMap::new();
    let mut all = Vec::new();
    for file in files {
        if !all.is_empty() {
            all.push(String::new());
        }
        all.extend(statements(file, &mut literals));
    }
    let (mut kept, mut mentioned, mut borders) = (Vec::new(), HashSet::new(), 0);
    for statement in all.iter().rev() {
        if statement.is_empty() {
            borders += 1;
            kept.push("return (function()");
            continue;
        }
        let names = defined(statement);
        if names.is_empty() || names.iter().any(|name| mentioned.contains(name)) {
            mentioned.extend(tokens(statement).into_iter().filter(|token| is_name(token)));
            kept.push(statement);
        }
    }
    kept.reverse();
    kept.extend(std::iter::repeat_n("end)()", borders));
    kept.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_has_what_it_needs_and_no_more() {
        let first = "-- About.\nlocal S, LATER, NEVER = 1, 'l', -1 -- places\nlocal call = redis.call\n\
                     local function unused()\n  return call\nend\n--- More.\nlocal function used(t)\n  return t[S] -NEVER\nend\n";
        let second = "local KINDS = { S = 3, x = 'S -- \\' S' }\nif used(KINDS) == S then\n  t.S = LATER\nelse\n  t = S\nend\n\
                      return call(S)\n";
        let composed = "local call = redis.call\nreturn (function()\nlocal function used(t)\n  return t[1] -(-1)\nend\n\
                        return (function()\nlocal KINDS = { S = 3, x = 'S -- \\' S' }\nif used(KINDS) == 1 then\n  \
                        t.S = 'l'\nelse\n  t = 1\nend\nreturn call(1)\nend)()\nend)()";
        assert_eq!(compose(&[first, second]), composed);
    }
}
