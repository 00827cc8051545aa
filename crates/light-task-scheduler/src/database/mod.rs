//! Connections to database servers, for every backend that needs some: no table of any of them.

#[cfg(feature = "postgres")]
pub(crate) mod postgres;
#[cfg(feature = "redis")]
pub(crate) mod redis;
