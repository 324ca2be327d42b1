//! One integration binary.

mod config;
mod dataworks;
mod templates;
