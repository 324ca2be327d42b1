//! One integration binary.

// clippy.toml allows these in test functions; the helpers of tests are tests too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod answers;
mod automation;
mod bot;
mod channels;
mod cli;
mod config;
mod conversations;
mod dataworks;
mod delivery_stories;
mod dingtalk;
mod discord;
mod fake_dingtalk;
mod fake_discord;
mod fake_slack;
mod faults;
mod memory;
mod model;
mod outages;
mod pages;
mod postgres;
mod process;
mod races;
mod results;
mod rights;
mod simulation;
mod sink;
mod slack;
mod store_contract;
mod store_file;
mod store_moving;
mod store_random;
mod store_replicas;
mod store_scene;
mod store_size;
mod stories;
mod templates;
mod tending;
mod tidy;
