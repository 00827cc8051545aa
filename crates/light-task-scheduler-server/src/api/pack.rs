//! Makes modules and style sheets smaller on their way to a browser: without comments, indentation and needless blanks.
//! No name is changed and no line is joined where that could change what it means.

/// What a run of blanks becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Blank {
    None,
    Space,
    Line,
}

/// Packs what can be packed, by the ending of its name.
pub(super) fn packed(name: &str, data: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(data).ok()?;
    match name.rsplit_once('.')?.1 {
        "js" => Some(Script::new(text).packed()),
        "css" => Some(style(text)),
        _ => None,
    }
}

/// A module that is read from its beginning to its end.
struct Script<'a> {
    rest: &'a str,
    out: String,
    /// The braces that are open in the code of each template that is open.
    templates: Vec<usize>,
    blank: Blank,
}

impl<'a> Script<'a> {
    fn new(text: &'a str) -> Self {
        Script { rest: text, out: String::with_capacity(text.len()), templates: Vec::new(), blank: Blank::None }
    }

    fn packed(mut self) -> String {
        while let Some(next) = self.rest.chars().next() {
            match next {
                next if next.is_whitespace() => self.blanks(),
                '/' if self.rest.starts_with("//") => self.skip(self.rest.find('\n').unwrap_or(self.rest.len())),
                '/' if self.rest.starts_with("/*") => {
                    self.skip(self.rest.find("*/").map_or(self.rest.len(), |end| end + 2));
                }
                '"' | '\'' => self.take(quoted(self.rest, next)),
                '/' if self.expects_value() => self.take(pattern(self.rest)),
                '`' => {
                    self.take(1);
                    self.template();
                }
                '}' if self.templates.last() == Some(&0) => {
                    self.templates.pop();
                    self.take(1);
                    self.template();
                }
                next => {
                    if let Some(depth) = self.templates.last_mut() {
                        *depth = match next {
                            '{' => *depth + 1,
                            '}' => *depth - 1,
                            _ => *depth,
                        };
                    }
                    self.take(next.len_utf8());
                }
            }
        }
        self.out
    }

    /// Notes a run of blanks, until it is known what comes after it.
    fn blanks(&mut self) {
        let end = self.rest.find(|letter: char| !letter.is_whitespace()).unwrap_or(self.rest.len());
        let seen = if self.rest[..end].contains('\n') { Blank::Line } else { Blank::Space };
        if self.blank != Blank::Line {
            self.blank = seen;
        }
        self.skip(end);
    }

    fn skip(&mut self, len: usize) {
        self.rest = &self.rest[len..];
    }

    /// Takes what comes next as it is, after what is needed of the blanks before.
    fn take(&mut self, len: usize) {
        let (taken, rest) = self.rest.split_at(len);
        if taken.starts_with(['}', ')', ']']) && self.may_drop_last(taken.starts_with('}')) {
            self.out.pop();
        }
        let (before, after) = (self.out.chars().next_back(), taken.chars().next());
        if let (Some(before), Some(after)) = (before, after) {
            match self.blank {
                Blank::Line if !goes_on(before, after) => self.out.push('\n'),
                Blank::Line | Blank::Space if would_merge(before, after) => self.out.push(' '),
                _ => {}
            }
        }
        self.blank = Blank::None;
        self.out.push_str(taken);
        self.rest = rest;
    }

    /// The text of a template up to its end or to code in it. A line end with what is around it becomes one line end:
    /// markup takes them alike.
    fn template(&mut self) {
        loop {
            let end = self.rest.find(['`', '\\', '$', '\n']).unwrap_or(self.rest.len());
            self.copy(end);
            if self.rest.starts_with("${") {
                self.copy(2);
                self.templates.push(0);
                return;
            }
            match self.rest.chars().next() {
                None => return,
                Some('`') => return self.copy(1),
                Some('\n') => {
                    let kept = self.out.trim_end_matches([' ', '\n']).len();
                    self.out.truncate(kept);
                    self.rest = self.rest.trim_start_matches([' ', '\n']);
                    // Beside a tag it is nothing at all.
                    if !self.out.ends_with('>') && !self.rest.starts_with(['<', '>']) {
                        self.out.push('\n');
                    }
                }
                Some('\\') => self.copy(1 + self.rest[1..].chars().next().map_or(0, char::len_utf8)),
                Some(other) => self.copy(other.len_utf8()),
            }
        }
    }

    fn copy(&mut self, len: usize) {
        self.out.push_str(&self.rest[..len]);
        self.skip(len);
    }

    /// Whether what was written last is needless before a closing bracket: the comma after a last item, which in an array
    /// may stand for an item itself, or the end of a last statement, which after `)` may be a statement itself.
    fn may_drop_last(&self, block: bool) -> bool {
        let mut last = self.out.chars().rev();
        match (last.next(), last.next()) {
            (Some(','), Some(before)) => !"[,".contains(before),
            (Some(';'), Some(before)) => block && !"){};".contains(before),
            _ => false,
        }
    }

    /// Whether a slash begins a pattern here: where a value is expected.
    fn expects_value(&self) -> bool {
        let before = self.out.trim_end();
        before.is_empty() || before.ends_with(|last| "(,=:[!&|?{};>".contains(last)) || before.ends_with("return")
    }
}

/// Whether a statement surely goes on over a line end between these two, or has surely ended.
fn goes_on(before: char, after: char) -> bool {
    "{([,;:=&|?<>".contains(before) || ")]},;.:?=&|".contains(after)
}

/// Whether these two would be read as one without a blank.
fn would_merge(before: char, after: char) -> bool {
    let word = |letter: char| letter.is_alphanumeric() || "_$#\\".contains(letter);
    (word(before) && word(after)) || (before == after && "+-/".contains(before))
}

/// The length of a string that begins here.
fn quoted(text: &str, quote: char) -> usize {
    let mut escaped = false;
    let end = text.char_indices().skip(1).find(|(_, letter)| {
        let ends = *letter == quote && !escaped;
        escaped = *letter == '\\' && !escaped;
        ends
    });
    end.map_or(text.len(), |(at, _)| at + 1)
}

/// The length of a pattern that begins here.
fn pattern(text: &str) -> usize {
    let (mut escaped, mut class) = (false, false);
    let end = text.char_indices().skip(1).find(|(_, letter)| {
        let ends = *letter == '/' && !escaped && !class;
        match letter {
            '[' if !escaped => class = true,
            ']' if !escaped => class = false,
            _ => {}
        }
        escaped = *letter == '\\' && !escaped;
        ends
    });
    end.map_or(text.len(), |(at, _)| at + 1)
}

/// A style sheet. Those of the console have no strings with blanks or comments in them.
fn style(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(next) = rest.chars().next() {
        if let Some(comment) = rest.strip_prefix("/*") {
            rest = comment.find("*/").map_or("", |end| &comment[end + 2..]);
            continue;
        }
        if next.is_whitespace() {
            rest = rest.trim_start();
            let needed = !out.is_empty() && !out.ends_with([' ', '{', '}', ';', ',', ':']);
            if needed && !rest.starts_with(['{', '}', ',', '/']) {
                out.push(' ');
            }
            continue;
        }
        if next == '}' && out.ends_with(';') {
            out.pop();
        }
        out.push(next);
        rest = &rest[next.len_utf8()..];
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn script(text: &str) -> String {
        packed("a.js", text.as_bytes()).unwrap()
    }

    #[test]
    fn comments_and_indentation_go_and_meaning_stays() {
        assert_eq!(script("// one\nlet a = 1; /* two */\n\n  let b = a + +a\n"), "let a=1;let b=a+ +a");
        assert_eq!(script("foo()\n  bar()\n"), "foo()\nbar()");
        assert_eq!(script("const x = {\n  a: 1,\n  b,\n}\nnext()"), "const x={a:1,b}\nnext()");
        assert_eq!(script("a\n  .b()\n  ?? c"), "a.b()?? c".replace("?? ", "??"));
        assert_eq!(script("return a\n++b"), "return a\n++b");
        assert_eq!(script("f(a, [b, ], [, ], [, , ],)"), "f(a,[b],[,],[,,])");
        assert_eq!(script("{ while (a()); }\n{ return b; }"), "{while(a());}\n{return b}");
    }

    #[test]
    fn strings_and_patterns_stay_what_they_are() {
        for text in [r#"f("a  // b\" c",'/*  x')"#, r"x=/[/'`]  \/\//g.test(y)", "`a  b`", "a/b/c"] {
            assert_eq!(script(text), text);
        }
        assert_eq!(script("return /a  b/"), "return/a  b/");
        assert_eq!(script("x = (a + b) / 2; // half"), "x=(a+b)/2;");
    }

    #[test]
    fn markup_loses_its_indentation_and_code_in_it_is_packed() {
        let text = "html`<p\n    class=${ `a ${ b }` }\n  >\n    ${ {\n  x: 1 }.x }  kept  ${y}\n</p>`";
        assert_eq!(script(text), "html`<p\nclass=${`a ${b}`}>${{x:1}.x}  kept  ${y}</p>`");
    }

    #[test]
    fn style_sheets_lose_what_they_do_not_need() {
        let text = "/* a */\na :is(b, c) > d {\n  margin: 0 calc(1px + 2px);\n  color: red;\n}\n\n@media (x: 1) {\n}\n";
        assert_eq!(
            packed("a.css", text.as_bytes()).unwrap(),
            "a :is(b,c) > d{margin:0 calc(1px + 2px);color:red}@media (x:1){}"
        );
    }

    #[test]
    fn other_files_are_left_alone() {
        assert_eq!(packed("a.json", b"{ }"), None);
        assert_eq!(packed("js", b"{ }"), None);
        assert_eq!(packed("a.js", b"\xff"), None);
    }
}
