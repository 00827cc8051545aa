//! The ids of tasks whose submitter gave none: UUIDs of version 7 that say where the row is.
//!
//! Such an id is neither stored nor indexed, which a third of an insertion would go into: it is made from the
//! row's number and creation time, and leads back to them. Its bits, the highest first:
//!
//! | bits | what |
//! |---|---|
//! | 48 | milliseconds since 1970 of the creation |
//! | 4 | the version, 7 |
//! | 10 | the microseconds beyond these |
//! | 2 | zero |
//! | 2 | the variant |
//! | 22 | the salt of this store, so that two stores never make the same id |
//! | 40 | the number of the row, never used twice in a store |

use std::ops::RangeInclusive;

use uuid::Uuid;

use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind, Result};
use crate::task::TaskId;

/// How many bits of an id are the salt.
const SALT_BITS: u32 = 22;
/// How many bits of an id are the row's number.
const SEQ_BITS: u32 = 40;
/// Everything that is the same in all ids of a store: version, zeroes, variant and salt.
const FIXED: u128 = (0xf << 76) | (0b1111 << 62) | (((1 << SALT_BITS) - 1) << SEQ_BITS);
const MICROS_PER_MILLI: u64 = 1_000;

/// Where a row is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) seq: i64,
    pub(super) created_at: Timestamp,
}

fn fixed(salt: i64) -> u128 {
    let version_and_variant = (0x7 << 76) | (0b10 << 62);
    version_and_variant | ((u128::from(salt.cast_unsigned()) << SEQ_BITS) & FIXED)
}

/// The id of the task at a place.
pub(super) fn id(salt: i64, place: Place) -> Result<TaskId> {
    let (micros, seq) = (place.created_at.as_micros().cast_unsigned(), place.seq.cast_unsigned());
    if seq >> SEQ_BITS != 0 {
        return Err(Error::new(ErrorKind::Full, format!("the store has numbered 2^{SEQ_BITS} tasks; begin a new one")));
    }
    let (millis, rest) = (u128::from(micros / MICROS_PER_MILLI), u128::from(micros % MICROS_PER_MILLI));
    Ok(TaskId::from_uuid(Uuid::from_u128((millis << 80) | (rest << 66) | fixed(salt) | u128::from(seq))))
}

/// The place that an id leads to, if it can be one of this store's.
pub(super) fn place(salt: i64, id: &TaskId) -> Option<Place> {
    let bits = id.as_uuid()?.as_u128();
    (bits & FIXED == fixed(salt)).then(|| read(bits))
}

fn read(bits: u128) -> Place {
    let (millis, rest) = ((bits >> 80) as u64, (bits >> 66) as u64 & 0x3ff);
    let micros = (millis * MICROS_PER_MILLI + rest.min(MICROS_PER_MILLI - 1)).cast_signed();
    Place { seq: (bits & ((1 << SEQ_BITS) - 1)) as i64, created_at: Timestamp::from_micros(micros) }
}

/// The places of the ids that begin with these characters: what both ranges include. `None`: no id does.
pub(super) fn places(salt: i64, prefix: &str) -> Option<(RangeInclusive<Timestamp>, RangeInclusive<i64>)> {
    let full = |filler: &str, known: u128| -> Option<u128> {
        let template = Uuid::from_u128(known).hyphenated().to_string();
        let rest = template.get(prefix.len()..)?.replace(|character: char| character != '-', filler);
        let uuid = Uuid::try_parse(&format!("{prefix}{rest}")).ok()?;
        // Upper case, or dashes elsewhere: not how an id is written.
        uuid.hyphenated().to_string().starts_with(prefix).then(|| uuid.as_u128())
    };
    let (lowest, highest) = (full("0", 0)?, full("f", 0)?);
    let given = !(lowest ^ highest);
    if (lowest ^ fixed(salt)) & FIXED & given != 0 {
        return None;
    }
    let (lowest, highest) = (read(lowest), read(highest));
    Some((lowest.created_at..=highest.created_at, lowest.seq..=highest.seq))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SALT: i64 = 0x2a_bcde;
    const PLACE: Place = Place { seq: 0x12_3456_789a, created_at: Timestamp::from_micros(1_700_000_000_123_999) };

    #[test]
    fn an_id_leads_to_its_place_in_its_own_store_only() {
        let made = id(SALT, PLACE).unwrap();
        assert_eq!(made.as_uuid().unwrap().get_version_num(), 7);
        assert_eq!(place(SALT, &made), Some(PLACE));
        assert_eq!(place(SALT + 1, &made), None);
        assert_eq!(place(SALT, &TaskId::new("task").unwrap()), None);
        assert!(id(SALT, Place { seq: 1 << SEQ_BITS, ..PLACE }).is_err());
    }

    #[test]
    fn every_beginning_of_an_id_leads_to_it_and_no_other_beginning_does() {
        let made = id(SALT, PLACE).unwrap().to_string();
        for end in 0..=made.len() {
            let (created_at, seq) = places(SALT, &made[..end]).unwrap();
            assert!(created_at.contains(&PLACE.created_at) && seq.contains(&PLACE.seq), "{}", &made[..end]);
        }
        for end in 1..=made.len() {
            let wrong = if made[..end].ends_with('1') { "2" } else { "1" };
            let found = places(SALT, &format!("{}{wrong}", &made[..end - 1]));
            let hit = |(created_at, seq): (RangeInclusive<Timestamp>, RangeInclusive<i64>)| {
                created_at.contains(&PLACE.created_at) && seq.contains(&PLACE.seq)
            };
            assert!(!found.is_some_and(hit), "{}{wrong}", &made[..end - 1]);
        }
        for other in ["x", "018BCFE5", "018bcfe56", &format!("{made}0"), "018bcfe5-687b-4"] {
            assert_eq!(places(SALT, other), None, "{other}");
        }
    }
}
