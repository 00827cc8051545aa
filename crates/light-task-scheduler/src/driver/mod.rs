//! Ways to servers that backends of several contracts share. They know values only.

#[cfg(feature = "redis")]
pub(crate) mod redis;
