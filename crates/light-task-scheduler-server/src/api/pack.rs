//! Makes modules and style sheets smaller on their way to a browser: without comments, indentation, and needless blanks,
//! brackets and quotes. No name is changed and no line is joined where that could change what it means.

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
    /// The templates that are open.
    templates: Vec<Template>,
    /// Of each round bracket that is open whether it is the head of a statement, which may be all of it.
    brackets: Vec<bool>,
    /// The same of the bracket that was closed last.
    head_closed: bool,
    blank: Blank,
}

/// A template that is open.
struct Template {
    /// The braces that are open in its code.
    braces: usize,
    /// It is markup.
    markup: bool,
}

impl<'a> Script<'a> {
    fn new(text: &'a str) -> Self {
        let out = String::with_capacity(text.len());
        Script { rest: text, out, templates: Vec::new(), brackets: Vec::new(), head_closed: false, blank: Blank::None }
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
                    let markup = self.out.ends_with("html");
                    self.take(1);
                    self.template(markup);
                }
                '}' if self.templates.last().is_some_and(|template| template.braces == 0) => {
                    let markup = self.templates.pop().is_some_and(|template| template.markup);
                    self.take(1);
                    self.template(markup);
                }
                '=' if self.rest.starts_with("=>") => {
                    self.open_parameter();
                    self.take(2);
                }
                next => {
                    self.count(next);
                    self.take(next.len_utf8());
                }
            }
        }
        self.out
    }

    /// Keeps count of brackets in code.
    fn count(&mut self, next: char) {
        if let Some(Template { braces, .. }) = self.templates.last_mut() {
            *braces = match next {
                '{' => *braces + 1,
                '}' => *braces - 1,
                _ => *braces,
            };
        }
        match next {
            '(' => self.brackets.push(["if", "for", "while"].iter().any(|word| self.out.ends_with(word))),
            ')' => self.head_closed = self.brackets.pop().unwrap_or(true),
            _ => {}
        }
    }

    /// Frees a parameter that is alone and only a name, of an arrow that comes next, of its brackets.
    fn open_parameter(&mut self) {
        let Some(list) = self.out.strip_suffix(')') else { return };
        let Some((before, name)) = list.rsplit_once('(') else { return };
        let is_name = !name.is_empty() && name.chars().all(is_of_name) && !name.starts_with(|c: char| c.is_numeric());
        if is_name && !before.ends_with(is_of_name) {
            let (at, name) = (before.len(), name.to_owned());
            self.out.truncate(at);
            self.out.push_str(&name);
        }
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
    fn template(&mut self, markup: bool) {
        loop {
            let end = self.rest.find(['`', '\\', '$', '\n']).unwrap_or(self.rest.len());
            if markup {
                self.out.push_str(&tags(&self.rest[..end], self.rest[end..].starts_with('\n')));
                self.skip(end);
            } else {
                self.copy(end);
            }
            if self.rest.starts_with("${") {
                self.copy(2);
                self.templates.push(Template { braces: 0, markup });
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
    /// may stand for an item itself, or the end of a last statement, which after the head of another may be a statement itself.
    fn may_drop_last(&self, block: bool) -> bool {
        let mut last = self.out.chars().rev();
        match (last.next(), last.next()) {
            (Some(','), Some(before)) => !"[,".contains(before),
            (Some(';'), Some(')')) => block && !self.head_closed,
            (Some(';'), Some(before)) => block && !"{;".contains(before),
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

/// Whether a letter may be a part of a name.
fn is_of_name(letter: char) -> bool {
    letter.is_alphanumeric() || "_$#\\".contains(letter)
}

/// Whether these two would be read as one without a blank.
fn would_merge(before: char, after: char) -> bool {
    (is_of_name(before) && is_of_name(after)) || (before == after && "+-/".contains(before))
}

/// Markup without quotes around single words, and without blanks before the end of a tag. `whole`: its line ends with it.
fn tags(text: &str, whole: bool) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, value)) = rest.split_once("=\"") {
        let len = value.find(|letter: char| !letter.is_ascii_alphanumeric() && letter != '-').unwrap_or(value.len());
        let ends = |after: &&str| after.starts_with([' ', '>']) || whole && after.is_empty();
        let word = value[len..].strip_prefix('"').filter(|after| len > 0 && ends(after));
        out.push_str(before);
        match word {
            Some(after) => {
                out.push('=');
                out.push_str(&value[..len]);
                rest = after;
            }
            None => {
                out.push_str("=\"");
                rest = value;
            }
        }
    }
    out.push_str(rest);
    out.replace(" />", "/>")
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
            let needed = !out.is_empty() && !out.ends_with([' ', '{', '}', ';', ',', ':', '>']);
            if needed && !rest.starts_with(['{', '}', ',', '/', '>']) {
                out.push(' ');
            }
            continue;
        }
        if next == '}' && out.ends_with(';') {
            out.pop();
        }
        rest = &rest[next.len_utf8()..];
        // The value of an attribute in a selector: a plain word needs no quotes.
        if next == '"'
            && out.ends_with('=')
            && let Some((value, after)) = rest.split_once('"')
            && after.starts_with(']')
            && value.chars().all(|c| c.is_ascii_lowercase())
            && !value.is_empty()
        {
            out.push_str(value);
            rest = after;
            continue;
        }
        // The zero of `0.5`, which is a number's first digit.
        let is_fraction =
            next == '0' && rest.strip_prefix('.').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
        if !(is_fraction && out.ends_with([' ', ':', ',', '(', '-'])) {
            out.push(next);
        }
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
        assert_eq!(script("{ if (a(b)) f(c); }\n{ if (a(b)); }"), "{if(a(b))f(c)}\n{if(a(b));}");
        assert_eq!(script("{ x = { a }; }"), "{x={a}}");
    }

    #[test]
    fn a_single_parameter_needs_no_brackets() {
        assert_eq!(script("f((a) => (b) => a(b) => c)"), "f(a=>b=>a(b)=>c)");
        for text in ["()=>a", "(a,b)=>a", "({a})=>a", "(...a)=>a", "async(a)=>a"] {
            assert_eq!(script(text), text);
        }
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
    fn markup_loses_quotes_and_blanks_that_it_does_not_need_and_other_text_keeps_them() {
        assert_eq!(script("html`<p\n  class=\"a\"\n  id=\"b\"\n/>`"), "html`<p\nclass=a\nid=b\n/>`");
        let text = r#"html`<p class="a" id="b c" d="" e="f"><${X} g="h-1" i=${"j"} /> "k" />${`l="m" />`}</p>`"#;
        let packed = r#"html`<p class=a id="b c" d="" e=f><${X} g=h-1 i=${"j"}/> "k"/>${`l="m" />`}</p>`"#;
        assert_eq!(script(text), packed);
    }

    #[test]
    fn style_sheets_lose_what_they_do_not_need() {
        let text = "/* a */\na :is(b, c) > d {\n  margin: 0 calc(1px + 2px);\n  color: red;\n}\n\n@media (x: 1) {\n}\n";
        assert_eq!(
            packed("a.css", text.as_bytes()).unwrap(),
            "a :is(b,c)>d{margin:0 calc(1px + 2px);color:red}@media (x:1){}"
        );
        let text = "a[b=\"c\"], d[e=\"f g\"] {\n  content: \"h\";\n  margin: -0.5em 10.5em 0;\n  opacity: 0.5;\n}\n";
        let packed_text = "a[b=c],d[e=\"f g\"]{content:\"h\";margin:-.5em 10.5em 0;opacity:.5}";
        assert_eq!(packed("a.css", text.as_bytes()).unwrap(), packed_text);
    }

    #[test]
    fn other_files_are_left_alone() {
        assert_eq!(packed("a.json", b"{ }"), None);
        assert_eq!(packed("js", b"{ }"), None);
        assert_eq!(packed("a.js", b"\xff"), None);
    }
}
