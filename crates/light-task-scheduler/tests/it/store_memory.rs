//! The memory store passes the conformance suite.
