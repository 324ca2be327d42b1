//! One integration binary.

mod discord;
mod fake_discord;
