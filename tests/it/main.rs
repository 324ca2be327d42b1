//! One integration binary.

mod dataworks;
mod templates;
