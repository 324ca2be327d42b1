//! Where the server is, and which schema it has.

use std::path::Path;
use std::time::Duration;

use native_tls::{Certificate, TlsConnector};
use postgres_native_tls::MakeTlsConnector;
use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode, TargetSessionAttrs};

use super::link::{CONNECT, PostgresLink, Target};
use crate::store::sql::{Fault, Link, Row, Value};
use crate::store::{Role, StoreError};

/// Numbered from 1, forward only; the table `schema` says how many a database has seen.
const MIGRATIONS: [&str; 1] = [include_str!("../migrations/postgres/0001_init.sql")];
/// The oldest that is still maintained.
const OLDEST_SERVER: i64 = 140_000;

type Answer<T> = Result<T, StoreError>;

/// How the way to the server is protected.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Tls {
    Off,
    /// Encrypted, with a certificate of this host; signed by one of the file's authorities, else by one the system trusts.
    Verified {
        roots: Option<String>,
    },
}

/// What `postgres://…` means, without `sslmode` and `sslrootcert`, and how the way is protected.
fn parse(url: &str) -> Result<(Config, Tls), String> {
    let (base, query) = url.split_once('?').unwrap_or((url, ""));
    let (mut mode, mut roots, mut others) = (None, None, Vec::new());
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        match pair.split_once('=') {
            Some(("sslmode", value)) => mode = Some(value.to_owned()),
            Some(("sslrootcert", value)) => roots = Some(value.replace("%2F", "/").replace("%2f", "/")),
            _ => others.push(pair),
        }
    }
    let url = if others.is_empty() { base.to_owned() } else { format!("{base}?{}", others.join("&")) };
    // What the parser says may repeat the password.
    let example = "write it like postgres://USER:PASSWORD@HOST/DATABASE";
    let mut config: Config =
        url.parse().map_err(|_| format!("it is no address of a PostgreSQL database; {example}"))?;
    let is_nowhere = |host: &Host| matches!(host, Host::Tcp(name) if name.is_empty());
    if config.get_hosts().is_empty() || config.get_hosts().iter().any(is_nowhere) {
        return Err(format!("it names no host; {example}"));
    }
    let is_near = |host: &Host| match host {
        Host::Unix(_) => true,
        Host::Tcp(name) => name == "localhost" || name.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback()),
    };
    let tls = match mode.as_deref() {
        None if config.get_hosts().iter().all(is_near) => Tls::Off,
        None | Some("require" | "verify-full") => Tls::Verified { roots },
        Some("disable") => Tls::Off,
        Some(_) => return Err("sslmode is disable or verify-full, which is the default beyond this machine".to_owned()),
    };
    config.ssl_mode(if tls == Tls::Off { SslMode::Disable } else { SslMode::Require });
    // Of several hosts the one that takes writes, whatever their order.
    config.target_session_attrs(TargetSessionAttrs::ReadWrite);
    config.application_name("callboard").connect_timeout(CONNECT);
    config.keepalives_idle(Duration::from_secs(10)).tcp_user_timeout(Duration::from_secs(10));
    Ok((config, tls))
}

/// Whether `url` can be understood. The error never repeats it: it may hold a password.
pub fn check(url: &str) -> Result<(), String> {
    parse(url).map(drop)
}

/// Which server and database that is; of what is no address, that it is one.
pub fn shown(url: &str) -> String {
    parse(url).map_or_else(|_| "PostgreSQL".to_owned(), |(config, _)| name(&config))
}

fn name(config: &Config) -> String {
    let host = match config.get_hosts().first() {
        Some(Host::Tcp(name)) => name.clone(),
        Some(Host::Unix(path)) => path.display().to_string(),
        None => String::new(),
    };
    let database = config.get_dbname().or(config.get_user()).unwrap_or_default();
    format!("PostgreSQL at {host}, database {database}")
}

pub fn target(url: &str) -> Answer<Target> {
    let (config, tls) = parse(url).map_err(StoreError::Open)?;
    let mut connector = TlsConnector::builder();
    if let Tls::Verified { roots: Some(file) } = &tls {
        let unusable = |said: String| StoreError::Open(format!("sslrootcert {file}: {said}"));
        let text = std::fs::read(Path::new(file)).map_err(|error| unusable(error.kind().to_string()))?;
        for root in Certificate::stack_from_pem(&text).map_err(|error| unusable(error.to_string()))? {
            connector.add_root_certificate(root);
        }
    }
    let connector = connector.build().map_err(|error| StoreError::Open(format!("TLS: {error}")))?;
    let name = name(&config).into();
    Ok(Target {
        config: config.into(),
        tls: MakeTlsConnector::new(connector),
        name,
        replica: 0,
        takeover_ms: 0,
        tells: false,
    })
}

/// Brings an older database, or an empty one, to the present schema. A newer one is refused.
pub fn prepare(link: &mut PostgresLink, name: &str, role: Role) -> Answer<()> {
    link.begin_writing()?;
    let prepared = migrate(link, name, role);
    match prepared {
        Ok(()) => link.commit(),
        Err(error) => {
            link.roll_back();
            Err(error)
        }
    }
}

fn migrate(link: &PostgresLink, name: &str, role: Role) -> Answer<()> {
    let asked = |error: Fault| error.about(name);
    let session = link.session();
    let text = |sql: &str| session.one(sql, &[], |row: &Row| row.get::<String>(0)).map_err(asked);
    let version: i64 = text("SHOW server_version_num")?.parse().unwrap_or_default();
    if version < OLDEST_SERVER {
        let (found, needed) = (version / 10_000, OLDEST_SERVER / 10_000);
        return Err(StoreError::Open(format!("{name} is version {found}; callboard needs {needed} or newer")));
    }
    if text("SHOW server_encoding")? != "UTF8" {
        return Err(StoreError::Open(format!("{name} is not encoded in UTF-8; create one with ENCODING 'UTF8'")));
    }
    // Said where it can be mended, and not by each command beside it.
    if role == Role::Owner && text("SHOW fsync")? != "on" {
        tracing::warn!("{name} runs with fsync off: what it confirmed may be lost when its machine stops");
    }
    link.run("CREATE TABLE IF NOT EXISTS schema (id BIGINT PRIMARY KEY CHECK (id = 1), version BIGINT NOT NULL)")?;
    let found = session.first("SELECT version FROM schema", &[], |row| row.get(0)).map_err(asked)?.unwrap_or(0_i64);
    let known = i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX);
    if found > known {
        return Err(StoreError::Newer { path: name.to_owned(), found, known });
    }
    for (number, migration) in (1_i64..).zip(MIGRATIONS).filter(|(number, _)| *number > found) {
        link.run(migration)?;
        let seen = "INSERT INTO schema VALUES (1, ?1) ON CONFLICT (id) DO UPDATE SET version = excluded.version";
        session.execute(seen, &[Value::Integer(number)]).map_err(asked)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beyond_this_machine_the_way_is_verified_unless_said_otherwise() {
        let verified = Tls::Verified { roots: None };
        let cases = [
            ("postgres://u:p@db.example.com/c", &verified),
            ("postgres://u:p@db.example.com/c?sslmode=require", &verified),
            ("postgres://u:p@db.example.com/c?sslmode=disable", &Tls::Off),
            ("postgres://u@localhost/c", &Tls::Off),
            ("postgres://u@127.0.0.1/c", &Tls::Off),
            ("postgres://u@127.0.0.1/c?sslmode=verify-full", &verified),
            ("postgres:///c?host=/run/postgresql&user=u", &Tls::Off),
        ];
        for (url, expected) in cases {
            assert_eq!(parse(url).map(|(_, tls)| tls).as_ref(), Ok(expected), "{url}");
        }
        let (config, tls) = parse("postgres://u@h/c?sslrootcert=%2Fetc%2Fca.pem&connect_timeout=9").unwrap();
        assert_eq!(tls, Tls::Verified { roots: Some("/etc/ca.pem".to_owned()) });
        assert_eq!(config.get_dbname(), Some("c"));
    }

    #[test]
    fn what_is_no_address_is_refused_without_repeating_it() {
        for url in [
            "postgres:///c?host=&password=hunter2",
            "postgres://u:hunter2@",
            "postgres://u:hunter2@h:port/c",
            "postgres://u:hunter2@h/c?sslmode=prefer",
        ] {
            let said = check(url).unwrap_err();
            assert!(!said.contains("hunter2") && !said.is_empty(), "{said}");
        }
    }
}
