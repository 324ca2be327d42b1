//! The one way out to the network: a client without redirects, proxies from the environment or decompression, whose
//! resolver refuses private addresses unless the configuration allows them.
