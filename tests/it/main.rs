//! One integration binary.

mod config;
mod dataworks;
mod discord;
mod fake_discord;
mod store_contract;
mod templates;
