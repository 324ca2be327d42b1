//! The one way out to the network: clients without redirects, proxies from the environment or decompression, that
//! reach no private address unless the configuration allows it.
//!
//! Addresses are judged where the connection is made, so nothing can change between looking and connecting:
//! - a host **name** is resolved by [`Resolver`], which refuses the name when *any* of its addresses is refused;
//! - a host written as an **address** never reaches the resolver, so [`Guard::check`] judges it in the URL;
//! - **http, or a port other than 443**, is for allowed private addresses only. Such URLs go through a second client
//!   whose resolver accepts nothing else, so a name needs no look-up ahead of the request.
//!
//! [`Net::client_for`] does all three and is the only way to a client.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::net::TcpStream;
use url::{Host, Url};

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

const CONNECT_DEADLINE: Duration = Duration::from_secs(5);

/// Shorter than any vendor keeps an idle connection: a request written to one that the other side just closed can't
/// be told from a request that arrived.
const IDLE: Duration = Duration::from_secs(20);

/// What everybody who sends requests is handed. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Net {
    guard: Guard,
    /// For https on port 443: public addresses and allowed private ones.
    anywhere: reqwest::Client,
    /// For everything else: allowed private addresses only.
    private: reqwest::Client,
}

#[derive(Debug, thiserror::Error)]
#[error("the HTTP client can't be built; are the system's certificates readable?")]
pub struct NetError(#[source] reqwest::Error);

impl Net {
    pub fn new(settings: &Settings) -> Result<Net, NetError> {
        Net::with_deadline(settings, DEADLINE)
    }

    /// As [`Net::new`], with another time from connecting to the last byte of the answer.
    pub fn with_deadline(settings: &Settings, deadline: Duration) -> Result<Net, NetError> {
        let guard = Guard::new(settings);
        let anywhere = client(Resolver { guard: guard.clone(), only_allowed: false }, deadline)?;
        let private = client(Resolver { guard: guard.clone(), only_allowed: true }, deadline)?;
        Ok(Net { guard, anywhere, private })
    }

    pub fn guard(&self) -> &Guard {
        &self.guard
    }

    /// The client for this URL, and for others of the same scheme, host and port.
    pub fn client_for(&self, url: &Url) -> Result<&reqwest::Client, Refused> {
        self.guard.check(url)?;
        Ok(if is_plain_https(url) { &self.anywhere } else { &self.private })
    }

    /// A connection for something else than requests: `wss` is judged like https, `ws` like http.
    pub async fn connect(&self, url: &Url) -> Result<TcpStream, Unreachable> {
        let mut judged = url.clone();
        let scheme = match url.scheme() {
            "wss" => "https",
            "ws" => "http",
            _ => return Err(Refused::Scheme.into()),
        };
        judged.set_scheme(scheme).map_err(|()| Refused::Scheme)?;
        self.guard.check(&judged)?;
        let port = judged.port_or_known_default().ok_or(Refused::Scheme)?;
        let addresses = match judged.host().ok_or(Refused::Scheme)? {
            Host::Ipv4(address) => vec![SocketAddr::from((address, port))],
            Host::Ipv6(address) => vec![SocketAddr::from((address, port))],
            Host::Domain(name) => {
                let found = tokio::net::lookup_host((name, port)).await.map_err(|_| NoAddress)?;
                self.guard.choose(name, found.collect(), !is_plain_https(&judged))?
            }
        };
        let connected = tokio::time::timeout(CONNECT_DEADLINE, TcpStream::connect(addresses.as_slice())).await;
        connected.map_err(|_| Unreachable::Late)?.map_err(|error| Unreachable::Failed(error.kind()))
    }
}

/// Why there is no connection. Names no URL.
#[derive(Debug, thiserror::Error)]
pub enum Unreachable {
    #[error(transparent)]
    Refused(#[from] Refused),
    #[error(transparent)]
    NoAddress(#[from] NoAddress),
    #[error("no connection in time")]
    Late,
    #[error("no connection could be made: {0}")]
    Failed(std::io::ErrorKind),
}

fn client(resolver: Resolver, deadline: Duration) -> Result<reqwest::Client, NetError> {
    reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .referer(false)
        .no_proxy()
        .dns_resolver(resolver)
        .timeout(deadline)
        .connect_timeout(CONNECT_DEADLINE.min(deadline))
        .pool_idle_timeout(IDLE)
        .user_agent(concat!("callboard/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(NetError)
}

fn is_plain_https(url: &Url) -> bool {
    url.scheme() == "https" && url.port_or_known_default() == Some(443)
}

/// Why a request may not leave. Names no URL: the host may be part of a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("the URL must start with https:// (or http:// for an address inside network.allow_private)")]
    Scheme,
    #[error("{0} is a private or reserved address; if requests should go there, add its CIDR to network.allow_private")]
    Address(IpAddr),
    #[error(
        "the host's name leads to {0}, a private or reserved address; if requests should go there, add its CIDR to \
         network.allow_private"
    )]
    Resolved(IpAddr),
    #[error(
        "http, or a port other than 443, is only for private addresses inside network.allow_private, which is empty; \
         use https on port 443, or add a CIDR"
    )]
    NothingAllowed,
    #[error(
        "http, or a port other than 443, is only for private addresses, and {0} is not inside \
         network.allow_private; use https on port 443, or add the CIDR"
    )]
    NotAllowed(IpAddr),
}

/// Which addresses requests may reach.
#[derive(Debug, Clone)]
pub struct Guard {
    allowed: Arc<[IpNet]>,
}

impl Guard {
    pub fn new(settings: &Settings) -> Guard {
        Guard { allowed: settings.allow_private.clone().into() }
    }

    /// What can be said of a URL without resolving its host; the rest is said while connecting.
    pub fn check(&self, url: &Url) -> Result<(), Refused> {
        if !matches!(url.scheme(), "https" | "http") {
            return Err(Refused::Scheme);
        }
        // The url crate has turned 0x7f.1, 2130706433 and the like into addresses.
        let literal = match url.host() {
            Some(Host::Ipv4(address)) => IpAddr::V4(address),
            Some(Host::Ipv6(address)) => IpAddr::V6(address),
            Some(Host::Domain(_)) if self.allowed.is_empty() && !is_plain_https(url) => {
                return Err(Refused::NothingAllowed);
            }
            Some(Host::Domain(_)) => return Ok(()),
            None => return Err(Refused::Scheme),
        };
        match (self.allows(literal), is_reserved(literal), is_plain_https(url)) {
            (true, _, _) | (false, false, true) => Ok(()),
            (false, true, _) => Err(Refused::Address(literal)),
            (false, false, false) => Err(Refused::NotAllowed(literal)),
        }
    }

    /// Inside `allow_private`.
    pub fn allows(&self, address: IpAddr) -> bool {
        self.allowed.iter().any(|net| net.contains(&address))
    }

    /// The addresses of a name that may be connected to. One refused address refuses the name: an answer that mixes
    /// public and private addresses is what an attack looks like.
    ///
    /// `localhost` (and `*.localhost`) is loopback by RFC 6761 whoever answers, usually 127.0.0.1 and ::1, and who
    /// allows 127.0.0.0/8 means it by that name; its loopback addresses that are not allowed are dropped while
    /// another one is.
    pub fn choose(
        &self,
        name: &str,
        mut addresses: Vec<SocketAddr>,
        only_allowed: bool,
    ) -> Result<Vec<SocketAddr>, Refused> {
        if is_localhost(name) && addresses.iter().any(|address| self.allows(address.ip())) {
            addresses.retain(|address| self.allows(address.ip()) || !address.ip().is_loopback());
        }
        for address in addresses.iter().map(SocketAddr::ip).filter(|ip| !self.allows(*ip)) {
            if is_reserved(address) {
                return Err(Refused::Resolved(address));
            }
            if only_allowed {
                return Err(Refused::NotAllowed(address));
            }
        }
        Ok(addresses)
    }
}

fn is_localhost(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name);
    name.rsplit('.').next().is_some_and(|last| last.eq_ignore_ascii_case("localhost"))
}

/// Not on the public internet, or not meant for one host there, by IANA's registries of special-purpose addresses
/// (<https://www.iana.org/assignments/iana-ipv4-special-registry>, `iana-ipv6-special-registry`). Of IPv6 only
/// 2000::/3 is handed out at all, so everything else is refused by default: loopback, v4-mapped, NAT64, discard,
/// SRv6, unique local, link local, site local, multicast.
pub fn is_reserved(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_reserved_v4(address),
        IpAddr::V6(address) => {
            let [a, b, ..] = address.segments();
            match a {
                // IETF protocol assignments: Teredo, benchmarking, ORCHID and others.
                0x2001 => b < 0x0200 || b == 0x0db8,
                // 6to4 carries any IPv4 address.
                0x2002 => true,
                // Documentation.
                0x3fff => b < 0x1000,
                _ => a & 0xe000 != 0x2000,
            }
        }
    }
}

fn is_reserved_v4(address: Ipv4Addr) -> bool {
    match address.octets() {
        // This network, private, loopback.
        [0 | 10 | 127, ..] => true,
        // Carrier-grade NAT; Alibaba Cloud's metadata service is 100.100.100.200.
        [100, b, ..] => b & 0xc0 == 64,
        // Link local; most clouds' metadata service is 169.254.169.254.
        [169, 254, ..] => true,
        // Azure's host agent answers every machine there at 168.63.129.16.
        [168, 63, 129, 16] => true,
        [172, b, ..] => b & 0xf0 == 16,
        // Protocol assignments, documentation, the old 6to4 relays.
        [192, 0, 0 | 2, _] | [192, 88, 99, _] => true,
        [192, 168, ..] => true,
        // Benchmarking.
        [198, 18 | 19, ..] => true,
        // Documentation.
        [198, 51, 100, _] | [203, 0, 113, _] => true,
        // Multicast, reserved, broadcast.
        [a, ..] => a >= 224,
    }
}

/// Resolves by the system's resolver and lets only admitted addresses through.
#[derive(Debug, Clone)]
struct Resolver {
    guard: Guard,
    only_allowed: bool,
}

/// The host's name has no address just now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the host's name can't be resolved")]
pub struct NoAddress;

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let Resolver { guard, only_allowed } = self.clone();
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await.map_err(|_| NoAddress)?;
            let chosen = guard.choose(name.as_str(), found.collect(), only_allowed)?;
            if chosen.is_empty() {
                return Err(NoAddress.into());
            }
            Ok(Box::new(chosen.into_iter()) as Addrs)
        })
    }
}

/// Why no answer came, in words that hold no URL.
pub fn explain(error: &reqwest::Error) -> String {
    let refused = causes(error).find_map(|cause| cause.downcast_ref::<Refused>().map(ToString::to_string));
    if let Some(words) = refused {
        return words;
    }
    if causes(error).any(<dyn std::error::Error>::is::<NoAddress>) {
        return NoAddress.to_string();
    }
    let io = causes(error).filter_map(|cause| cause.downcast_ref::<std::io::Error>()).last().map(std::io::Error::kind);
    match (error.is_connect(), error.is_timeout(), io) {
        (true, true, _) => "no connection in time".to_owned(),
        (true, _, Some(std::io::ErrorKind::ConnectionRefused)) => "the connection was refused".to_owned(),
        (true, _, _) => "no connection could be made (network, or TLS: is the certificate valid?)".to_owned(),
        (false, true, _) => "no whole answer in time".to_owned(),
        (false, false, _) => "the connection broke before a whole answer came".to_owned(),
    }
}

/// The refusal inside an error of the client, if that is why it failed.
pub fn refusal(error: &reqwest::Error) -> Option<Refused> {
    causes(error).find_map(|cause| cause.downcast_ref::<Refused>().copied())
}

fn causes<'a>(
    error: &'a (dyn std::error::Error + 'static),
) -> impl Iterator<Item = &'a (dyn std::error::Error + 'static)> {
    std::iter::successors(Some(error), |error| error.source())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard(nets: &[&str]) -> Guard {
        Guard::new(&Settings { allow_private: nets.iter().map(|net| net.parse().unwrap()).collect() })
    }

    fn url(text: &str) -> Url {
        text.parse().unwrap()
    }

    fn sockets(addresses: &[&str]) -> Vec<SocketAddr> {
        addresses.iter().map(|address| SocketAddr::new(address.parse().unwrap(), 0)).collect()
    }

    /// First and last address of each block of IANA's registries, and the neighbours outside it that are public.
    const BLOCKS: &[(&str, &str, &str, &str)] = &[
        ("", "0.0.0.0", "0.255.255.255", "1.0.0.0"),
        ("9.255.255.255", "10.0.0.0", "10.255.255.255", "11.0.0.0"),
        ("100.63.255.255", "100.64.0.0", "100.127.255.255", "100.128.0.0"),
        ("126.255.255.255", "127.0.0.0", "127.255.255.255", "128.0.0.0"),
        ("168.63.129.15", "168.63.129.16", "168.63.129.16", "168.63.129.17"),
        ("169.253.255.255", "169.254.0.0", "169.254.255.255", "169.255.0.0"),
        ("172.15.255.255", "172.16.0.0", "172.31.255.255", "172.32.0.0"),
        ("191.255.255.255", "192.0.0.0", "192.0.0.255", "192.0.1.0"),
        ("192.0.1.255", "192.0.2.0", "192.0.2.255", "192.0.3.0"),
        ("192.88.98.255", "192.88.99.0", "192.88.99.255", "192.88.100.0"),
        ("192.167.255.255", "192.168.0.0", "192.168.255.255", "192.169.0.0"),
        ("198.17.255.255", "198.18.0.0", "198.19.255.255", "198.20.0.0"),
        ("198.51.99.255", "198.51.100.0", "198.51.100.255", "198.51.101.0"),
        ("203.0.112.255", "203.0.113.0", "203.0.113.255", "203.0.114.0"),
        ("223.255.255.255", "224.0.0.0", "255.255.255.255", ""),
        ("", "::", "1fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "2000::"),
        ("2000:ffff::", "2001::", "2001:1ff:ffff:ffff:ffff:ffff:ffff:ffff", "2001:200::"),
        ("2001:db7:ffff::", "2001:db8::", "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", "2001:db9::"),
        ("2001:ffff::", "2002::", "2002:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "2003::"),
        ("3ffe:ffff::", "3fff::", "3fff:fff:ffff:ffff:ffff:ffff:ffff:ffff", "3fff:1000::"),
        ("3fff:ffff::", "4000::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", ""),
    ];

    #[test]
    fn blocks_of_the_registries_are_reserved_and_their_neighbours_are_not() {
        for (before, first, last, after) in BLOCKS {
            for inside in [first, last] {
                assert!(is_reserved(inside.parse().unwrap()), "{inside} can be reached");
            }
            for outside in [before, after].into_iter().filter(|text| !text.is_empty()) {
                assert!(!is_reserved(outside.parse().unwrap()), "{outside} can't be reached");
            }
        }
    }

    #[test]
    fn single_addresses_that_attacks_use_are_reserved() {
        for address in [
            "127.0.0.1",
            "169.254.169.254",
            "100.100.100.200",
            "255.255.255.255",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:8.8.8.8",
            "::127.0.0.1",
            "64:ff9b::7f00:1",
            "64:ff9b:1::1",
            "100::1",
            "2001::1",
            "2002:7f00:1::",
            "5f00::1",
            "fc00::1",
            "fd00:ec2::254",
            "fe80::1",
            "fec0::1",
            "ff02::1",
        ] {
            assert!(is_reserved(address.parse().unwrap()), "{address} can be reached");
        }
        for address in ["8.8.8.8", "47.97.0.1", "162.159.128.233", "2400:3200::1", "2606:4700::6810:84e5"] {
            assert!(!is_reserved(address.parse().unwrap()), "{address} can't be reached");
        }
    }

    #[test]
    fn addresses_in_odd_notations_are_seen_through() {
        for host in
            ["127.0.0.1", "0x7f.1", "2130706433", "017700000001", "127.1", "127.0.0.1.", "1２7.0.0.1", "%31%32%37.1"]
        {
            let refused = guard(&[]).check(&url(&format!("https://{host}/x"))).unwrap_err();
            assert_eq!(refused, Refused::Address("127.0.0.1".parse().unwrap()), "{host}");
        }
        for host in ["[::1]", "[::ffff:7f00:1]", "[64:ff9b::7f00:1]"] {
            assert!(guard(&[]).check(&url(&format!("https://{host}/x"))).is_err(), "{host}");
        }
        for odd in ["ftp://example.com/", "file:///etc/passwd", "data:text/plain,x"] {
            assert_eq!(guard(&["127.0.0.0/8"]).check(&url(odd)), Err(Refused::Scheme), "{odd}");
        }
    }

    #[test]
    fn http_and_odd_ports_are_for_allowed_addresses_only() {
        let guard = guard(&["127.0.0.0/8"]);
        for fine in ["http://127.0.0.1:8080/", "https://127.0.0.1/", "https://8.8.8.8/", "https://example.com/"] {
            assert_eq!(guard.check(&url(fine)), Ok(()), "{fine}");
        }
        for bad in ["http://8.8.8.8/", "https://8.8.8.8:8443/"] {
            assert!(matches!(guard.check(&url(bad)), Err(Refused::NotAllowed(_))), "{bad}");
        }
        assert_eq!(guard.check(&url("http://localhost:8080/")), Ok(()));
        assert_eq!(self::guard(&[]).check(&url("http://example.com/")), Err(Refused::NothingAllowed));
        assert!(guard.check(&url("http://10.0.0.1/")).unwrap_err().to_string().contains("network.allow_private"));
        let public = sockets(&["8.8.8.8"]);
        assert_eq!(guard.choose("example.com", public.clone(), false), Ok(public.clone()));
        assert!(guard.choose("example.com", public, true).is_err(), "http to a public name");
    }

    #[test]
    fn only_https_on_its_port_leaves_for_public_names() {
        let settings = Settings { allow_private: vec!["127.0.0.0/8".parse().unwrap()] };
        let net = Net::new(&settings).unwrap();
        for (target, public) in [
            ("https://example.com/", true),
            ("https://example.com:443/", true),
            ("https://example.com:8443/", false),
            ("http://example.com/", false),
            ("http://example.com:443/", false),
        ] {
            let client = net.client_for(&url(target)).unwrap();
            assert_eq!(std::ptr::eq(client, &raw const net.anywhere), public, "{target}");
        }
    }

    #[test]
    fn a_mixed_answer_refuses_the_name() {
        let loopback: IpAddr = "127.0.0.1".parse().unwrap();
        let mixed = sockets(&["8.8.8.8", "127.0.0.1"]);
        assert_eq!(guard(&[]).choose("rebind.example", mixed, false), Err(Refused::Resolved(loopback)));
        let split = sockets(&["10.1.2.3", "::1"]);
        assert!(guard(&["10.0.0.0/8"]).choose("rebind.example", split, false).is_err());
    }

    #[test]
    fn localhost_means_the_allowed_loopback() {
        let both = sockets(&["::1", "127.0.0.1"]);
        let allowed = guard(&["127.0.0.0/8"]);
        for name in ["localhost", "LOCALHOST.", "api.localhost"] {
            assert_eq!(allowed.choose(name, both.clone(), true), Ok(sockets(&["127.0.0.1"])), "{name}");
        }
        assert!(allowed.choose("notlocalhost", both.clone(), true).is_err());
        assert!(guard(&[]).choose("localhost", both, false).is_err());
        let lie = sockets(&["127.0.0.1", "10.0.0.1"]);
        assert!(allowed.choose("localhost", lie, true).is_err(), "a localhost that is not loopback");
    }
}
