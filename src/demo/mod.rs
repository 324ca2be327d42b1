//! What `callboard demo` and `callboard simulate` run against, and the tests too.

pub mod dataworks;
