//! One integration binary.

// clippy.toml allows these in test functions; the helpers of tests are tests too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod channels;
mod config;
mod dataworks;
mod discord;
mod fake_discord;
mod sink;
mod store_contract;
mod templates;
mod tidy;
