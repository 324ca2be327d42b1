//! One integration binary.

mod dataworks;
