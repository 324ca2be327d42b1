//! Callboard follows release pipelines and posts one message for each change to the chats that asked for it.
//!
//! ```text
//!  poll ─ snapshot ─ diff ─ changes ─┐                      ┌─ claim ─ render ─ send ─ settle
//!                                    └─ record (1 txn) ─────┘
//!                                       snapshot + outbox rows
//! ```
//!
//! The poller takes due workspaces and lists their runs through a source; the tracker compares each snapshot with the
//! last one and records what changed together with the deliveries it owes, in one transaction of the store; the
//! dispatcher claims due deliveries, renders and sends each through its channel and settles what happened. Surfaces
//! bring commands in. ARCHITECTURE.md walks through it.

// In reading order; the blank lines keep rustfmt from sorting it.
pub mod model;

pub mod diff;

pub mod schedule;

pub mod access;

pub mod delivery;

pub mod sources;

pub mod channels;

pub mod surfaces;

pub mod store;

pub mod render;

pub mod tracker;

pub mod meter;

pub mod audit;

pub mod fate;

pub mod poller;

pub mod commands;

pub mod http;

pub mod demo;

pub mod config;

pub mod dispatcher;

pub mod app;

pub mod cli;

pub mod net;

pub mod metrics;

pub mod text;

pub mod settings;

pub mod planted;
