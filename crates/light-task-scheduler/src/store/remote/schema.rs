//! How the values on the wire that are not described field by field are described in OpenAPI.

use std::borrow::Cow;

use utoipa::openapi::schema::{AnyOfBuilder, ObjectBuilder, SchemaFormat, Type};
use utoipa::openapi::{KnownFormat, RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use super::wire::{Bytes, Span};
use crate::clock::Timestamp;
use crate::state::Command;
use crate::task::{FailureKind, Name, Progress, ReplicaId, State, TaskId};

/// Describes types that are texts.
macro_rules! texts {
    ($($type:ident $format:expr, $about:literal;)*) => {$(
        impl PartialSchema for $type {
            fn schema() -> RefOr<Schema> {
                let text = ObjectBuilder::new().schema_type(Type::String).description(Some($about));
                text.format($format).into()
            }
        }

        impl ToSchema for $type {
            fn name() -> Cow<'static, str> {
                stringify!($type).into()
            }
        }
    )*};
}

texts! {
    TaskId None, "Names a task";
    Name None, "A name";
    ReplicaId Some(SchemaFormat::Custom("uuid".to_owned())), "Names a worker";
    Timestamp Some(SchemaFormat::KnownFormat(KnownFormat::DateTime)), "A time";
    Span None, "A duration in seconds, such as PT90S or 1.5s";
    State None, "held, waiting, running, exporting, succeeded, failed or cancelled";
    FailureKind None, "error, panic, timeout, deadline, lost, refused, busy, drained, export, poison or cancelled";
}

impl PartialSchema for Command {
    fn schema() -> RefOr<Schema> {
        let text = ObjectBuilder::new().schema_type(Type::String);
        let name = text.description(Some("start, cancel, requeue, retry_export or delete"));
        let priority = ObjectBuilder::new().schema_type(Type::Integer);
        let what = ObjectBuilder::new().property("run_at", Timestamp::schema()).property("priority", priority);
        let reschedule = ObjectBuilder::new().property("reschedule", what).required("reschedule");
        AnyOfBuilder::new().item(name).item(reschedule).into()
    }
}

impl ToSchema for Command {
    fn name() -> Cow<'static, str> {
        "Command".into()
    }
}

impl PartialSchema for Progress {
    fn schema() -> RefOr<Schema> {
        let number = || ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(0));
        let object = ObjectBuilder::new().description(Some("How far a run has come; a total of 0 is unknown"));
        let object = object.property("done", number()).property("total", number());
        object.property("message", ObjectBuilder::new().schema_type(Type::String)).into()
    }
}

impl ToSchema for Progress {
    fn name() -> Cow<'static, str> {
        "LeaseProgress".into()
    }
}

impl PartialSchema for Bytes {
    fn schema() -> RefOr<Schema> {
        let json = ObjectBuilder::new().property("json", ObjectBuilder::new()).required("json");
        let text = ObjectBuilder::new().schema_type(Type::String);
        let base64 = ObjectBuilder::new().property("base64", text).required("base64");
        AnyOfBuilder::new().item(json).item(base64).into()
    }
}

impl ToSchema for Bytes {
    fn name() -> Cow<'static, str> {
        "Bytes".into()
    }
}
