//! The one way out to the network: a client without redirects, proxies from the environment or decompression, whose
//! resolver refuses private addresses unless the configuration allows them.

use std::time::Duration;

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::Deserialize;

/// `[network]`
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// CIDRs that outgoing requests may reach although they are private, then also by http and on any port.
    #[schemars(with = "Vec<String>")]
    pub allow_private: Vec<IpNet>,
}

/// From connecting to the last byte of the answer.
pub const DEADLINE: Duration = Duration::from_secs(10);
