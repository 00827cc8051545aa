//! The tidy test: rules about the sources that no compiler and no lint checks, or that must hold in every
//! build. One test per rule; a message names the place and the rule.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod imports;
mod scan;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use scan::{code_only, functions, line_of, without_items, words};

/// Longest file, in lines.
const FILE_LINES_MAX: usize = 800;
/// Longest function, in lines.
const FUNCTION_LINES_MAX: usize = 70;
/// The library's sources.
const LIBRARY: &str = "crates/light-task-scheduler/src/";
/// The one file that may talk to the system without the compiler's guarantees.
const UNSAFE_ALLOWED: &str = "crates/light-task-scheduler/src/executor/process/sys.rs";
/// The one file that asks the system for the time.
const CLOCK: &str = "crates/light-task-scheduler/src/clock.rs";

/// An item under one of these is left alone by the rule on panics and clocks; clippy and reviewers check
/// its reason.
const REASONED: [&str; 3] = [
    "#[allow(clippy::expect_used, reason",
    "#[allow(clippy::unwrap_used, reason",
    "#[allow(clippy::disallowed_methods, reason",
];

/// What code outside tests must not contain, and what to do instead.
const BANNED: [(&str, &str); 6] = [
    (".unwrap()", "return an error"),
    (".expect(", "return an error"),
    ("todo!", "finish it"),
    ("unimplemented!", "finish it"),
    ("dbg!", "use tracing"),
    ("thread::sleep", "wait for an event, or use tokio time"),
];

/// What the library must not contain either.
const BANNED_IN_LIBRARY: [(&str, &str); 6] = [
    ("SystemTime::now", "take the time from a Clock"),
    ("Instant::now", "use clock::monotonic()"),
    ("println!", "use tracing"),
    ("eprintln!", "use tracing"),
    ("print!", "use tracing"),
    ("eprint!", "use tracing"),
];

/// What marks an item as a test.
const TESTS: [&str; 2] = ["#[cfg(test)]", "#[cfg(all(test,"];

/// A Rust source of ours.
struct Source {
    /// From the root of the workspace, with `/`.
    path: String,
    text: String,
    /// Without comments and literals.
    code: String,
    /// Without tests either; empty for files of tests, examples and the testing module.
    product: String,
}

impl Source {
    fn new(path: &str, text: String) -> Self {
        let code = code_only(&text);
        let product = if is_product(path) { without_items(&code, &TESTS) } else { String::new() };
        Source { path: path.to_owned(), text, code, product }
    }
}

fn is_product(path: &str) -> bool {
    let in_sources = path.starts_with("crates/") && path.contains("/src/");
    in_sources && !path.contains("/src/testing/") && !path.ends_with("tests.rs") && !path.contains("tests/")
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("the workspace is there")
}

/// Every file of the project, from the root of the workspace.
fn files() -> Vec<String> {
    let git = Command::new("git").args(["ls-files", "-co", "--exclude-standard"]).current_dir(root()).output();
    let mut files: Vec<String> = match git {
        Ok(output) if output.status.success() && !output.stdout.is_empty() => {
            String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
        }
        // An unpacked archive has no git.
        _ => {
            let mut found = Vec::new();
            walk(&root(), "", &mut found);
            found
        }
    };
    files.retain(|file| root().join(file).is_file());
    assert!(files.iter().any(|file| file.ends_with("src/lib.rs")), "the sources are not where they should be");
    files
}

fn walk(directory: &Path, prefix: &str, found: &mut Vec<String>) {
    for entry in fs::read_dir(directory).expect("the workspace is readable").flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = format!("{prefix}{name}");
        match entry.path().is_dir() {
            true if name == "target" || name == ".git" => {}
            true => walk(&entry.path(), &format!("{path}/"), found),
            false => found.push(path),
        }
    }
}

fn sources() -> Vec<Source> {
    let rust = files().into_iter().filter(|file| file.ends_with(".rs"));
    rust.map(|path| Source::new(&path, fs::read_to_string(root().join(&path)).expect("sources are text"))).collect()
}

fn assert_none(problems: Vec<String>) {
    assert!(problems.is_empty(), "{} problems:\n{}\n", problems.len(), problems.join("\n"));
}

fn too_long(source: &Source) -> Vec<String> {
    let path = &source.path;
    let lines = source.text.lines().count();
    let file = (lines > FILE_LINES_MAX)
        .then(|| format!("{path}:{lines}: a file has at most {FILE_LINES_MAX} lines; split it by ideas"));
    let long = functions(&source.code).into_iter().filter(|function| function.lines > FUNCTION_LINES_MAX);
    let functions = long.map(|function| {
        let (name, line, lines) = (function.name, function.line, function.lines);
        format!("{path}:{line}: `{name}` has {lines} lines, at most {FUNCTION_LINES_MAX}; give its parts names")
    });
    file.into_iter().chain(functions).collect()
}

fn banned(source: &Source) -> Vec<String> {
    let library = source.path.starts_with(LIBRARY) && source.path != CLOCK;
    let in_library = BANNED_IN_LIBRARY.iter().filter(|_| library);
    let product = without_items(&source.product, &REASONED);
    let mut problems = Vec::new();
    for (text, instead) in BANNED.iter().chain(in_library) {
        for place in words(&product, text) {
            let line = line_of(&product, place);
            problems.push(format!("{}:{line}: no `{text}` outside tests; {instead}", source.path));
        }
    }
    problems
}

fn banned_everywhere(source: &Source) -> Vec<String> {
    let mut problems = Vec::new();
    let mut forbid = |text: &str, why: &str| {
        for place in words(&source.code, text) {
            problems.push(format!("{}:{}: no `{text}`; {why}", source.path, line_of(&source.code, place)));
        }
    };
    forbid("#[ignore", "a test that does not run checks nothing");
    if source.path != UNSAFE_ALLOWED {
        forbid("unsafe", "only executor/process/sys.rs talks to the system");
    }
    // A literal, so it is looked for in the text: the way around a crate's public face.
    for (number, line) in source.text.lines().enumerate() {
        if line.trim_start().starts_with("#[path") && line.contains('/') {
            problems.push(format!("{}:{}: a module is beside its parent; use the public API", source.path, number + 1));
        }
    }
    problems
}

/// Headings (their levels) and code blocks of a text in Markdown.
fn outline(markdown: &str) -> (Vec<usize>, Vec<String>) {
    let (mut headings, mut blocks) = (Vec::new(), Vec::new());
    let mut block: Option<String> = None;
    for line in markdown.lines() {
        match &mut block {
            Some(text) if line.starts_with("```") => {
                blocks.push(std::mem::take(text));
                block = None;
            }
            Some(text) => text.push_str(&format!("{line}\n")),
            None if line.starts_with("```") => block = Some(format!("{line}\n")),
            None if line.starts_with('#') => headings.push(line.bytes().take_while(|byte| *byte == b'#').count()),
            None => {}
        }
    }
    (headings, blocks)
}

/// Directories of one machine. Put together here, so that this file has none.
fn foreign_paths() -> [String; 2] {
    ["root", "home"].map(|name| format!("/{name}/"))
}

#[test]
fn files_and_functions_are_short() {
    assert_none(sources().iter().flat_map(too_long).collect());
}

#[test]
fn product_code_has_no_panic_print_clock_or_sleep() {
    assert_none(sources().iter().flat_map(banned).collect());
}

#[test]
fn nothing_is_ignored_unsafe_or_taken_from_elsewhere() {
    assert_none(sources().iter().flat_map(banned_everywhere).collect());
}

#[test]
fn imports_go_one_way() {
    let sources = sources();
    let product = sources.iter().filter(|source| !source.product.is_empty());
    let library = product.filter_map(|source| Some((source.path.strip_prefix(LIBRARY)?, source)));
    // A program beside the library sees its public face only.
    let library = library.filter(|(path, _)| !path.starts_with("bin/"));
    let modules = library.map(|(path, source)| imports::Module::new(path, &source.product));
    let problems = imports::problems(&modules.collect::<Vec<_>>());
    assert_none(problems.into_iter().map(|problem| format!("{LIBRARY}{problem}")).collect());
}

#[test]
fn every_script_and_schema_is_used() {
    let sources = sources();
    let scripts = files().into_iter().filter(|file| file.ends_with(".sql") || file.ends_with(".lua"));
    let unused = scripts.filter(|file| {
        let name = file.rsplit('/').next().unwrap_or(file);
        !sources.iter().any(|source| source.text.contains(&format!("{name}\"")))
    });
    assert_none(unused.map(|file| format!("{file}:1: no Rust file includes it; delete it or use it")).collect());
}

#[test]
fn no_file_names_a_directory_of_one_machine() {
    let mut problems = Vec::new();
    for file in files() {
        // What is no text has no lines to name.
        let Ok(text) = fs::read_to_string(root().join(&file)) else { continue };
        for (number, line) in text.lines().enumerate() {
            for path in foreign_paths().iter().filter(|path| line.contains(path.as_str())) {
                problems.push(format!("{file}:{}: `{path}` is a path of one machine", number + 1));
            }
        }
    }
    assert_none(problems);
}

#[test]
fn both_readmes_say_the_same() {
    let read = |name: &str| outline(&fs::read_to_string(root().join(name)).unwrap_or_else(|e| panic!("{name}: {e}")));
    let (english, chinese) = (read("README.md"), read("README.zh-CN.md"));
    assert_eq!(english.0, chinese.0, "README.md and README.zh-CN.md differ in their headings (levels in order)");
    assert_eq!(english.1, chinese.1, "README.md and README.zh-CN.md differ in their code blocks");
    assert!(!english.1.is_empty());
}

#[test]
fn the_code_in_the_readme_is_an_example() {
    let readme = outline(&fs::read_to_string(root().join("README.md")).unwrap());
    let examples: Vec<String> = sources()
        .into_iter()
        .filter(|source| source.path.starts_with("crates/light-task-scheduler/examples/"))
        .map(|source| format!("```rust\n{}", source.text))
        .collect();
    let rust = readme.1.iter().filter(|block| block.starts_with("```rust"));
    assert_none(
        rust.filter(|block| !examples.contains(block))
            .map(|block| format!("README.md: no example is\n{block}"))
            .collect(),
    );
}

mod the_rules_catch {
    use super::*;

    fn product(text: &str) -> Source {
        Source::new("crates/light-task-scheduler/src/bad.rs", text.to_owned())
    }

    #[test]
    fn a_long_function_and_a_long_file() {
        let body = "    x();\n".repeat(FUNCTION_LINES_MAX);
        let problems = too_long(&product(&format!("fn short() {{}}\n\nfn long() {{\n{body}}}\n")));
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(problems[0].starts_with("crates/light-task-scheduler/src/bad.rs:3: `long` has 72"), "{problems:?}");
        assert_eq!(too_long(&product(&"// x\n".repeat(FILE_LINES_MAX))).len(), 0);
        assert_eq!(too_long(&product(&"// x\n".repeat(FILE_LINES_MAX + 1))).len(), 1);
    }

    #[test]
    fn every_banned_word_in_code_but_not_in_text_or_tests() {
        for (text, _) in BANNED.iter().chain(&BANNED_IN_LIBRARY) {
            let bad =
                format!("fn f() {{\n    a{text}();\n}}\n").replace("athread", "thread").replace("aprint", "print");
            let bad = if text.starts_with('.') { bad } else { format!("fn f() {{\n    {text}();\n}}\n") };
            let problems = banned(&product(&bad));
            assert_eq!(problems.len(), 1, "{bad}: {problems:?}");
            assert!(problems[0].contains("bad.rs:2: "), "{problems:?}");
            let fine = format!("// {text}\nconst S: &str = \"{text}\";\n#[cfg(test)]\nmod tests {{\n{bad}}}\n");
            assert_eq!(banned(&product(&fine)), Vec::<String>::new());
        }
    }

    #[test]
    fn a_panic_whose_reason_stands_above_it_and_no_other() {
        let item = "fn a() { b().expect(\"c\"); }\n";
        let reasoned = format!("#[allow(clippy::expect_used, reason = \"d\")]\n{item}");
        assert_eq!(banned(&product(&reasoned)).len(), 0);
        assert_eq!(banned(&product(&format!("{reasoned}{item}"))).len(), 1);
        assert_eq!(banned(&product(&format!("#[allow(clippy::expect_used)]\n{item}"))).len(), 1);
    }

    #[test]
    fn ignored_tests_and_unsafe_code_also_in_tests() {
        let bad = "#[cfg(test)]\nmod tests {\n#[test]\n#[ignore = \"slow\"]\nfn a() { unsafe { b() } }\n}\n";
        let problems = banned_everywhere(&product(bad));
        assert_eq!(problems.len(), 2, "{problems:?}");
        assert!(problems[0].contains(":4: no `#[ignore`") && problems[1].contains(":5: no `unsafe`"), "{problems:?}");
        assert_eq!(banned_everywhere(&product("#[path = \"../../library/src/store.rs\"]\nmod store;\n")).len(), 1);
        assert!(banned_everywhere(&product("#[path = \"bad_tests.rs\"]\nmod tests;\n")).is_empty());
        assert!(banned_everywhere(&Source::new(UNSAFE_ALLOWED, "unsafe {}".to_owned())).is_empty());
    }

    #[test]
    fn a_readme_that_says_more_than_the_other() {
        let one = outline("# A\n\n```sh\n# no heading\nrun\n```\n\n## B\n");
        assert_eq!(one, (vec![1, 2], vec!["```sh\n# no heading\nrun\n".to_owned()]));
        assert_ne!(one, outline("# A\n\n```sh\nrun it\n```\n\n## B\n"));
        assert_ne!(one.0, outline("# A\n\n### B\n").0);
    }
}
