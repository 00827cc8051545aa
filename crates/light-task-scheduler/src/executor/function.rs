//! Function calls in this process.

/// Placeholder while it is being built.
#[derive(Debug)]
pub struct FunctionExecutor;

/// Placeholder while it is being built.
#[derive(Debug)]
pub struct Context;
