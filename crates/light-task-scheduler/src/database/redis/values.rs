//! Taking apart what scripts answer.

use std::str::FromStr;

use redis::Value;

use super::error::unreadable;
use crate::clock::Timestamp;
use crate::error::Result;

/// The items of an array.
pub(crate) fn items(value: Value) -> Result<Vec<Value>> {
    match value {
        Value::Array(items) => Ok(items),
        _ => Err(unreadable("an answer")),
    }
}

/// The items of an array that has so many.
pub(crate) fn array<const N: usize>(value: Value) -> Result<[Value; N]> {
    items(value)?.try_into().map_err(|_| unreadable("an answer"))
}

/// The bytes of a string.
pub(crate) fn bytes(value: &Value) -> Result<&[u8]> {
    match value {
        Value::BulkString(bytes) => Ok(bytes),
        _ => Err(unreadable("an answer")),
    }
}

/// A string.
pub(crate) fn text(value: &Value) -> Result<&str> {
    std::str::from_utf8(bytes(value)?).map_err(|_| unreadable("an answer"))
}

/// A number, whether it came as one or as text.
pub(crate) fn number<T: FromStr + TryFrom<i64>>(value: &Value) -> Result<T> {
    match value {
        Value::Int(number) => T::try_from(*number).map_err(|_| unreadable("a number")),
        _ => text(value)?.parse().map_err(|_| unreadable("a number")),
    }
}

/// A time, in microseconds.
pub(crate) fn time(value: &Value) -> Result<Timestamp> {
    number(value).map(Timestamp::from_micros)
}

/// Strings.
pub(crate) fn texts(value: Value) -> Result<Vec<String>> {
    items(value)?.iter().map(|item| text(item).map(str::to_owned)).collect()
}
