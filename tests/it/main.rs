//! One integration binary.

mod templates;
