//! Reads Rust source just well enough to judge it: what is code, what is a test, where functions end.

/// The source with every comment and every string and character literal blanked out, byte for byte, so
/// that places in it are places in the source.
pub(crate) fn code_only(source: &str) -> String {
    let bytes = source.as_bytes();
    let mut code = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let end = literal_end(bytes, at);
        for byte in &mut code[at..end] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
        at = end.max(at + 1);
    }
    // What was blanked was blanked whole, so that no character is cut.
    String::from_utf8(code).expect("only whole characters are blanked")
}

/// Where the comment or literal that begins at `at` ends; `at` itself if none begins there.
fn literal_end(bytes: &[u8], at: usize) -> usize {
    let rest = &bytes[at..];
    let begins_word = at == 0 || !is_word(bytes[at - 1]);
    match rest {
        [b'/', b'/', ..] => at + rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len()),
        [b'/', b'*', ..] => at + block_comment_len(rest),
        [b'"', ..] => at + quoted_len(rest, b'"'),
        [b'\'', ..] if is_char(rest) => at + quoted_len(rest, b'\''),
        [b'b' | b'c' | b'r', ..] if begins_word => at + prefixed_len(rest),
        _ => at,
    }
}

fn block_comment_len(rest: &[u8]) -> usize {
    let (mut at, mut depth) = (0, 0);
    while at < rest.len() {
        match &rest[at..] {
            [b'/', b'*', ..] => (at, depth) = (at + 2, depth + 1),
            [b'*', b'/', ..] => (at, depth) = (at + 2, depth - 1),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at
}

fn quoted_len(rest: &[u8], quote: u8) -> usize {
    let mut at = 1;
    while at < rest.len() && rest[at] != quote {
        at += if rest[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(rest.len())
}

/// `'x'` and `'\n'` are characters, `'x` is a lifetime.
fn is_char(rest: &[u8]) -> bool {
    match rest.get(1) {
        Some(b'\\') => true,
        Some(first) => {
            let width = match first {
                0xf0.. => 4,
                0xe0.. => 3,
                0xc0.. => 2,
                _ => 1,
            };
            rest.get(1 + width) == Some(&b'\'')
        }
        None => false,
    }
}

/// `b"…"`, `c"…"`, `r"…"`, `r#"…"#`, `br#"…"#`, `b'x'`; 0 for a word that merely begins so.
fn prefixed_len(rest: &[u8]) -> usize {
    let prefix = rest.iter().take_while(|byte| matches!(byte, b'b' | b'c' | b'r')).count();
    let hashes = rest[prefix..].iter().take_while(|byte| **byte == b'#').count();
    let raw = rest[..prefix].ends_with(b"r");
    let open = prefix + hashes;
    match rest.get(open) {
        Some(b'"') if raw => {
            let mut close = vec![b'"'];
            close.resize(1 + hashes, b'#');
            let body = &rest[open + 1..];
            let found = body.windows(close.len()).position(|window| window == close);
            found.map_or(rest.len(), |at| open + 1 + at + close.len())
        }
        Some(quote @ (b'"' | b'\'')) if hashes == 0 && prefix == 1 => open + quoted_len(&rest[open..], *quote),
        _ => 0,
    }
}

fn is_word(byte: u8) -> bool {
    byte == b'_' || byte.is_ascii_alphanumeric() || !byte.is_ascii()
}

/// The code with every item under one of these attributes blanked out too.
pub(crate) fn without_items(code: &str, attributes: &[&str]) -> String {
    let mut kept = code.as_bytes().to_vec();
    for attribute in attributes {
        for (start, _) in code.match_indices(attribute) {
            let end = item_end(code.as_bytes(), start);
            for byte in &mut kept[start..end] {
                if *byte != b'\n' {
                    *byte = b' ';
                }
            }
        }
    }
    String::from_utf8(kept).expect("items are blanked whole")
}

/// Where the item that begins at `at`, attributes and all, ends: at its `;`, or with its braces.
fn item_end(code: &[u8], at: usize) -> usize {
    let mut depth = 0;
    for (place, byte) in code.iter().enumerate().skip(at) {
        match byte {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => {
                depth -= 1;
                if depth == 0 && *byte == b'}' {
                    return place + 1;
                }
            }
            b';' if depth == 0 => return place + 1,
            _ => {}
        }
    }
    code.len()
}

/// A function: its name, the line it begins on (the first is 1), and how many lines it has.
#[derive(Debug, PartialEq)]
pub(crate) struct Function {
    pub(crate) name: String,
    pub(crate) line: usize,
    pub(crate) lines: usize,
}

/// Every function with a body, also those inside others.
pub(crate) fn functions(code: &str) -> Vec<Function> {
    words(code, "fn")
        .filter_map(|start| {
            let name: String =
                code[start + 2..].trim_start().chars().take_while(|c| *c == '_' || c.is_alphanumeric()).collect();
            let end = item_end(code.as_bytes(), start);
            // `fn(u8) -> u8` is a type; a function that ends at its `;` has no body.
            let has_body = code[..end].ends_with('}');
            let lines = code[start..end].matches('\n').count() + 1;
            (!name.is_empty() && has_body).then(|| Function { name, line: line_of(code, start), lines })
        })
        .collect()
}

/// Every place where `text` stands in the code as a whole word.
pub(crate) fn words<'a>(code: &'a str, text: &'a str) -> impl Iterator<Item = usize> + 'a {
    let bytes = code.as_bytes();
    code.match_indices(text).map(|(start, _)| start).filter(move |start| {
        let end = start + text.len();
        let free = |edge: u8, beside: Option<&u8>| !is_word(edge) || !beside.is_some_and(|byte| is_word(*byte));
        free(bytes[*start], start.checked_sub(1).and_then(|before| bytes.get(before)))
            && free(bytes[end - 1], bytes.get(end))
    })
}

/// The line of a place; the first is 1.
pub(crate) fn line_of(code: &str, place: usize) -> usize {
    code[..place].matches('\n').count() + 1
}

/// Every path that begins with `crate`, `self` or `super`, and every path of a `use`, with its line; groups
/// are spelled out.
pub(crate) fn paths(code: &str) -> Vec<(usize, Vec<String>)> {
    let mut found = Vec::new();
    let mut statements = Vec::new();
    for start in words(code, "use") {
        let end = start + code[start..].find(';').unwrap_or(code.len() - start);
        let mut spelled = Vec::new();
        spell_out(&code[start + "use".len()..end], &[], &mut spelled);
        found.extend(spelled.into_iter().map(|path| (line_of(code, start), path)));
        statements.push(start..end);
    }
    for root in ["crate", "self", "super"] {
        for start in words(code, root).filter(|start| code[start + root.len()..].starts_with("::")) {
            // The inner part of `super::super::x` is no path of its own.
            if code[..start].ends_with("::") || statements.iter().any(|statement| statement.contains(&start)) {
                continue;
            }
            let path = code[start..].split(|c: char| c != ':' && c != '_' && !c.is_alphanumeric()).next();
            let path = path.unwrap_or_default().split("::").filter(|part| !part.is_empty());
            found.push((line_of(code, start), path.map(str::to_owned).collect()));
        }
    }
    found
}

/// `a::{b, c::{d, e as f}}` → `a::b`, `a::c::d`, `a::c::e`.
pub(crate) fn spell_out(tree: &str, prefix: &[String], found: &mut Vec<Vec<String>>) {
    let tree = tree.trim();
    let (head, group) = match tree.split_once('{') {
        Some((head, group)) => (head, Some(group.strip_suffix('}').unwrap_or(group))),
        None => (tree.split(" as ").next().unwrap_or(tree), None),
    };
    let mut path = prefix.to_vec();
    path.extend(head.split("::").map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned));
    let Some(group) = group else {
        if path.len() > prefix.len() {
            found.push(path);
        }
        return;
    };
    let (mut depth, mut from) = (0, 0);
    for (at, byte) in group.bytes().enumerate() {
        match byte {
            b'{' => depth += 1,
            b'}' => depth -= 1,
            b',' if depth == 0 => {
                spell_out(&group[from..at], &path, found);
                from = at + 1;
            }
            _ => {}
        }
    }
    spell_out(&group[from..], &path, found);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_literals_are_no_code() {
        let cases = [
            ("a // b.unwrap()\nc", "a\nc"),
            ("a /* b /* c */ d */ e", "a e"),
            (r#"a("b \" } c") d"#, "a( ) d"),
            (r##"a(r#"b " { c"#) d"##, "a( ) d"),
            (r#"a(br"\") d"#, "a( ) d"),
            (r#"a(b"{", c"}", b'{', '}', '\'', '\u{7d}', '数') d"#, "a( , , , , , , ) d"),
            ("fn a<'a>(b: &'a str) -> &'static str {}", "fn a<'a>(b: &'a str) -> &'static str {}"),
            ("'outer: loop { break 'outer }", "'outer: loop { break 'outer }"),
            ("bar(r, b, c) + r#type", "bar(r, b, c) + r#type"),
            ("\"never closed", ""),
        ];
        for (source, code) in cases {
            let masked = code_only(source);
            assert_eq!(masked.len(), source.len(), "{source}");
            let squeeze = |text: &str| text.split(' ').filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ");
            assert_eq!(squeeze(&masked).replace(" \n", "\n"), squeeze(code), "{source}");
        }
    }

    #[test]
    fn items_are_blanked_and_what_follows_is_not() {
        let code = "a();\n#[cfg(test)]\nmod tests {\n fn x() { y } }\nb();\n#[cfg(test)]\nmod more;\nc();";
        let kept = without_items(code, &["#[cfg(test)]"]);
        assert_eq!(kept.split_whitespace().collect::<Vec<_>>(), ["a();", "b();", "c();"]);
        assert_eq!(kept.matches('\n').count(), code.matches('\n').count());
    }

    #[test]
    fn functions_are_measured_to_their_last_brace() {
        let code = "trait A { fn none(&self); fn one(&self) {} }\nfn two<T>(f: fn(u8) -> u8) -> [u8; 2]\nwhere T: B {\n \
                    let x = || { y };\n fn inner() {}\n}\nconst fn_name: u8 = 1;";
        let function = |name: &str, line, lines| Function { name: name.to_owned(), line, lines };
        let expected = [function("one", 1, 1), function("two", 2, 5), function("inner", 5, 1)];
        assert_eq!(functions(&code_only(code)), expected);
    }

    #[test]
    fn a_brace_in_a_string_does_not_lengthen_a_function() {
        let code = "fn a() {\n let s = \"{\";\n let c = '{'; // {\n}\nfn b() {}\n";
        assert_eq!(functions(&code_only(code)).iter().map(|f| f.lines).collect::<Vec<_>>(), [4, 1]);
    }

    #[test]
    fn paths_are_spelled_out() {
        let code = "use crate::{a::{b, c as d}, e};\nuse std::fmt;\nfn f() { super::super::g::h(); crate::i::J::k() }";
        let text: Vec<String> =
            paths(code).into_iter().map(|(line, path)| format!("{line} {}", path.join("::"))).collect();
        let expected =
            ["1 crate::a::b", "1 crate::a::c", "1 crate::e", "2 std::fmt", "3 crate::i::J::k", "3 super::super::g::h"];
        for path in expected {
            assert!(text.iter().any(|found| found == path), "{path} is not in {text:?}");
        }
    }

    #[test]
    fn words_are_whole() {
        assert_eq!(words("print!() eprintln!() println!()", "println!").count(), 1);
        assert_eq!(words("a.unwrap() b.unwrap_or()", ".unwrap()").count(), 1);
        assert_eq!(words("unsafe_code unsafe {}", "unsafe").count(), 1);
    }
}
