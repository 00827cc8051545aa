//! A directory in which `lts dev` serves its store, and the two ways to ask: through the server, and the store itself.

use std::io::Write;
use std::process::Stdio;

use crate::support::{Place, Running, Said, said};

/// What every test of the command line works on.
pub(crate) struct Served {
    pub(crate) place: Place,
    pub(crate) url: String,
    dev: Option<Running>,
}

impl Served {
    pub(crate) fn new() -> Self {
        let place = Place::new();
        let mut dev = place.start(&["dev", "--listen", "127.0.0.1:0"]);
        let line = dev.hear("listens on http://");
        let url = line.split_whitespace().find(|word| word.starts_with("http://")).unwrap().to_owned();
        Served { place, url, dev: Some(dev) }
    }

    /// Whom to ask: both must answer alike.
    pub(crate) fn ways(&self) -> [Way<'_>; 2] {
        [Way { served: self, target: ["--server", &self.url] }, Way { served: self, target: ["--store", "lts.db"] }]
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.dev.take().into_iter().for_each(Running::kill);
    }
}

/// One of the two ways.
#[derive(Clone, Copy)]
pub(crate) struct Way<'a> {
    served: &'a Served,
    pub(crate) target: [&'a str; 2],
}

impl Way<'_> {
    pub(crate) fn lts(&self, args: &[&str]) -> Said {
        self.served.place.lts(&[args, &self.target].concat())
    }

    /// The same, which must exit with this code; what it printed.
    pub(crate) fn gives(&self, code: i32, args: &[&str]) -> String {
        let said = self.lts(args);
        assert_eq!(said.code, code, "{args:?} {:?}: {said:?}", self.target);
        said.stdout
    }

    /// The same, with this on its stdin.
    pub(crate) fn fed(&self, input: &str, args: &[&str]) -> Said {
        let mut command = self.served.place.command(&[args, &self.target].concat());
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        said(child.wait_with_output().unwrap())
    }

    /// Submits a task and answers its id.
    pub(crate) fn submit(&self, args: &[&str]) -> String {
        self.gives(0, &[&["task", "submit", "-o", "name"], args].concat()).trim().to_owned()
    }
}
