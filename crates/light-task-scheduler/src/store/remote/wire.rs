//! What goes over the wire between a [`RemoteStore`](super::RemoteStore) and the server that has its tasks: plain
//! values in JSON, each made from one value of the contract and back.
//!
//! Times are RFC 3339, durations `PT1.5S`, ids and names texts. Bytes that are JSON stand there as JSON, exactly as
//! they are; all others in base64. A worker in any other language speaks the same.

mod lease;
mod task;

pub use lease::*;
pub use task::*;

pub use crate::database::remote::Fault;
