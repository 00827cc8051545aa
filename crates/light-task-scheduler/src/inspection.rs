//! What a store is kept in, as far as that can be told without opening it: engine, versions, durability, size.

use std::fmt;

use serde::Serialize;

use crate::error::{Error, ErrorKind, Result};

/// What a store was found to be. Looking changes nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Inspection {
    /// What keeps the tasks: `SQLite`, `PostgreSQL`, `MariaDB`, `MySQL` or `Redis`.
    pub engine: String,
    /// Its version, as it says itself.
    pub version: String,
    /// What "accepted" means: `always` (on the disk), `every second`, `relaxed` or `volatile`, and in brackets the
    /// setting that says so.
    pub durability: String,
    /// The version of each part of the store.
    pub schemas: Vec<Schema>,
    /// How many bytes it takes, where that is cheap to tell.
    pub bytes: Option<u64>,
}

impl Inspection {
    /// Whether this program can use it as it is.
    pub fn is_current(&self) -> bool {
        self.schemas.iter().all(|schema| schema.found == schema.needed)
    }
}

/// The version of what one part of a store is kept in: its tables, or its keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Schema {
    /// Whose it is: `tasks` or `results` (which are results and logs).
    pub component: String,
    /// The version that is there; 0: nothing.
    pub found: usize,
    /// The version that this program works with.
    pub needed: usize,
}

impl Schema {
    /// A version found where another one may be needed.
    pub(crate) fn new(component: &str, found: usize, needed: usize) -> Self {
        Schema { component: component.to_owned(), found, needed }
    }

    /// Whether it can be used as it is; if not, it is to be migrated. Refuses what a newer release has made, and
    /// what would have to be migrated by somebody who may not. `place` says where it was found.
    pub(crate) fn check(&self, place: impl fmt::Display, may_migrate: bool) -> Result<bool> {
        let Schema { component, found, needed } = self;
        let incompatible = |message| Err(Error::new(ErrorKind::Incompatible, message));
        if found > needed {
            return incompatible(format!(
                "{place} has version {found} of the {component}, this program knows {needed}; use a newer release"
            ));
        }
        if found == needed || may_migrate {
            return Ok(found == needed);
        }
        let is = match found {
            0 => format!("has no {component} yet"),
            found => format!("has version {found} of the {component}, this program needs {needed}"),
        };
        incompatible(format!("{place} {is}, and may not be migrated by whoever opens it; run `lts store migrate`"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_older_schema_is_used_only_by_who_may_migrate_it() {
        let check = |found, may_migrate| Schema::new("tasks", found, 2).check("here", may_migrate);
        assert!(check(2, false).unwrap());
        assert!(!check(1, true).unwrap() && !check(0, true).unwrap());
        for (found, may_migrate, says) in
            [(3, true, "newer release"), (1, false, "lts store migrate"), (0, false, "has no tasks yet")]
        {
            let refused = check(found, may_migrate).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::Incompatible);
            assert!(refused.to_string().contains(says), "{refused}");
        }
    }
}
