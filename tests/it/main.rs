//! One integration binary.

mod store_contract;
