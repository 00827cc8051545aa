//! The real program, in temporary directories.
