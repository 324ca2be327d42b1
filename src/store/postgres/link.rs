//! A connection to the server, made when it is needed and made anew when it broke.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use postgres_native_tls::MakeTlsConnector;
use tokio::runtime::{Builder, Runtime};
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{IsNull, ToSql, Type, to_sql_checked};
use tokio_postgres::{Client, Config, Statement};

use crate::store::sql::{Fault, Link, Result, Row, Session, Value};
use crate::store::{StoreError, TRANSACTION};

/// The one lock of all who write; they come one after another, as the verbs rely on. Any number that nobody else uses.
const WRITING: i64 = 0x0043_616c_6c62_6f61;
/// A statement takes milliseconds, and waits for other writers no longer than they may sit idle.
const STATEMENT: Duration = Duration::from_secs(15);
/// For each host, and once for the rest.
pub const CONNECT: Duration = Duration::from_secs(3);

/// One that was taken for dead comes back as itself: what it had under way is unknown, and nothing else is lost. After a
/// gap it is heard of only since then.
const BEAT: &str = "
    INSERT INTO replicas (id, takeover_ms) OVERRIDING SYSTEM VALUE VALUES (?1, ?2)
    ON CONFLICT (id) DO UPDATE SET
      since = CASE WHEN replicas.seen_at < clock_timestamp() - interval '6 seconds' THEN clock_timestamp()
        ELSE replicas.since END,
      seen_at = clock_timestamp()";

type Answer<T> = std::result::Result<T, StoreError>;

/// Where the store is, and who asks.
#[derive(Clone)]
pub struct Target {
    pub config: Arc<Config>,
    pub tls: MakeTlsConnector,
    /// `HOST/DATABASE`, for people.
    pub name: Arc<str>,
    /// 0: none yet, or a command beside the service.
    pub replica: i64,
    /// After how long of silence others may send again what it was sending.
    pub takeover_ms: i64,
    /// The service hears of everything that is written by it.
    pub tells: bool,
}

pub struct PostgresLink {
    target: Target,
    connected: Option<Connected>,
}

/// A connection with a runtime of its own, which runs while somebody waits for an answer: whoever holds up the caller's
/// runtime, to close the store for example, does not hold up what he waits for.
struct Connected {
    client: Client,
    statements: RefCell<HashMap<String, Statement>>,
    runtime: Option<Runtime>,
    replica: i64,
    takeover_ms: i64,
    /// It did not answer in time: nobody knows what it did, so it is not to be used again.
    broken: Cell<bool>,
}

impl PostgresLink {
    /// Connects when it is first needed.
    pub fn to(target: Target) -> PostgresLink {
        PostgresLink { target, connected: None }
    }

    fn begin(&mut self, how: &str) -> Answer<()> {
        if !self.is_undone() && self.run(how).is_ok() {
            return Ok(());
        }
        // That a connection was cut shows when it is used. Nothing has happened yet, so another one does as well.
        self.connected = None;
        self.connected = Some(Connected::to(&self.target)?);
        let begun = self.run(how);
        if begun.is_err() {
            self.connected = None;
        }
        begun
    }

    pub fn run(&self, batch: &str) -> Answer<()> {
        self.connected.as_ref().ok_or_else(away)?.run(batch)
    }
}

fn away() -> StoreError {
    StoreError::Away("there is no connection to PostgreSQL".to_owned())
}

impl Connected {
    fn to(target: &Target) -> Answer<Connected> {
        let unusable = |error: std::io::Error| StoreError::Failed(format!("no connection can be made: {error}"));
        let runtime = Builder::new_current_thread().enable_all().build().map_err(unusable)?;
        let connecting = async {
            let (client, connection) = target.config.connect(target.tls.clone()).await.map_err(|error| of(&error))?;
            tokio::spawn(async move {
                if let Err(error) = connection.await {
                    tracing::debug!(%error, "a connection to PostgreSQL ended");
                }
            });
            let settings = format!(
                "SET callboard.replica = '{}'; SET idle_in_transaction_session_timeout = '{}s'; \
                 SET statement_timeout = '10s'; SET synchronous_commit = 'on'",
                target.replica,
                TRANSACTION.as_secs()
            );
            client.batch_execute(&settings).await.map_err(|error| of(&error))?;
            Ok(client)
        };
        let hosts = u32::try_from(target.config.get_hosts().len()).unwrap_or(1);
        let connected = runtime.block_on(within(CONNECT * hosts + CONNECT, connecting));
        let client = match connected {
            Ok(client) => client,
            Err(error) => {
                // A name that is still being looked up is not waited for.
                runtime.shutdown_background();
                return Err(match error {
                    StoreError::Away(said) => StoreError::Away(format!("{}: {said}", target.name)),
                    error => error,
                });
            }
        };
        let broken = Cell::new(false);
        Ok(Connected {
            broken,
            client,
            statements: RefCell::default(),
            runtime: Some(runtime),
            replica: target.replica,
            takeover_ms: target.takeover_ms,
        })
    }

    fn wait<T>(&self, work: impl Future<Output = Answer<T>>) -> Answer<T> {
        let waited = self.runtime.as_ref().ok_or_else(away)?.block_on(within(STATEMENT, work));
        if matches!(waited, Err(StoreError::Away(_))) {
            self.broken.set(true);
        }
        waited
    }

    fn run(&self, batch: &str) -> Answer<()> {
        let running = async { self.client.batch_execute(batch).await.map_err(|error| of(&error)) };
        self.wait(running)
    }

    async fn prepared(&self, statement: &str) -> Answer<Statement> {
        if let Some(known) = self.statements.borrow().get(statement) {
            return Ok(known.clone());
        }
        let prepared = self.client.prepare(&in_its_words(statement)).await.map_err(|error| of(&error))?;
        self.statements.borrow_mut().insert(statement.to_owned(), prepared.clone());
        Ok(prepared)
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// A server that does not answer is away.
async fn within<T>(limit: Duration, work: impl Future<Output = Answer<T>>) -> Answer<T> {
    let timed_out = || StoreError::Away(format!("PostgreSQL does not answer within {} s", limit.as_secs()));
    tokio::time::timeout(limit, work).await.unwrap_or_else(|_| Err(timed_out()))
}

/// A statement as PostgreSQL knows it: `$1` for `?1`, and no advice on indexes.
fn in_its_words(statement: &str) -> String {
    let mut words = statement.replace('?', "$");
    while let Some((before, advice)) = words.split_once(" INDEXED BY ") {
        let after = advice.trim_start_matches(|c: char| c.is_alphanumeric() || c == '_');
        words = format!("{before}{after}");
    }
    words
}

impl Session for Connected {
    fn execute(&self, statement: &str, values: &[Value]) -> Result<u64> {
        let executing = async {
            let prepared = self.prepared(statement).await?;
            self.client.execute(&prepared, &parameters(values)).await.map_err(|error| of(&error))
        };
        Ok(self.wait(executing)?)
    }

    fn query(&self, statement: &str, values: &[Value]) -> Result<Vec<Row>> {
        let querying = async {
            let prepared = self.prepared(statement).await?;
            self.client.query(&prepared, &parameters(values)).await.map_err(|error| of(&error))
        };
        self.wait(querying)?.iter().map(row).collect()
    }

    fn replica(&self) -> i64 {
        self.replica
    }

    fn beat(&self) -> Result<()> {
        self.execute(BEAT, &[self.replica.into(), self.takeover_ms.into()]).map(drop)
    }
}

fn parameters(values: &[Value]) -> Vec<&(dyn ToSql + Sync)> {
    values.iter().map(|value| value as &(dyn ToSql + Sync)).collect()
}

fn row(row: &tokio_postgres::Row) -> Result<Row> {
    let unreadable = |error: tokio_postgres::Error| Fault::Unreadable(error.to_string());
    let value = |(index, column): (usize, &tokio_postgres::Column)| {
        let value = match *column.type_() {
            Type::BOOL => row.try_get::<_, Option<bool>>(index).map_err(unreadable)?.into(),
            Type::INT4 => row.try_get::<_, Option<i32>>(index).map_err(unreadable)?.map(i64::from).into(),
            Type::INT8 => row.try_get::<_, Option<i64>>(index).map_err(unreadable)?.into(),
            _ => row.try_get::<_, Option<String>>(index).map_err(unreadable)?.into(),
        };
        Ok(value)
    };
    row.columns().iter().enumerate().map(|(index, column)| value((index, column))).collect::<Result<_>>().map(Row)
}

impl ToSql for Value {
    fn to_sql(
        &self,
        ty: &Type,
        out: &mut BytesMut,
    ) -> std::result::Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        match self {
            Value::Null => Ok(IsNull::Yes),
            Value::Integer(value) => match *ty {
                Type::INT4 => i32::try_from(*value)?.to_sql(ty, out),
                Type::BOOL => (*value != 0).to_sql(ty, out),
                Type::INT8 => value.to_sql(ty, out),
                _ => Err(format!("a number where PostgreSQL expects {ty}").into()),
            },
            // PostgreSQL's text holds no zero byte.
            Value::Text(text) if text.contains('\0') => text.replace('\0', "\u{fffd}").to_sql(ty, out),
            Value::Text(text) => text.to_sql(ty, out),
        }
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    to_sql_checked!();
}

impl Link for PostgresLink {
    fn begin_writing(&mut self) -> Answer<()> {
        let tells = if self.target.tells { "; INSERT INTO moves (replica) VALUES (0)" } else { "" };
        // A snapshot that is older than the lock would show what was. A server that was set read-only is not overruled.
        let how = "BEGIN ISOLATION LEVEL READ COMMITTED";
        self.begin(&format!("{how}; SELECT pg_advisory_xact_lock({WRITING}){tells}"))
    }

    fn begin_reading(&mut self) -> Answer<()> {
        self.begin("BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY")
    }

    fn session(&self) -> &dyn Session {
        match &self.connected {
            Some(connected) => connected,
            None => &Away,
        }
    }

    fn is_undone(&self) -> bool {
        self.connected.as_ref().is_none_or(|connected| connected.broken.get() || connected.client.is_closed())
    }

    /// When the connection breaks meanwhile, nobody knows: the verbs find out when they are asked again.
    fn commit(&mut self) -> Answer<()> {
        // A transaction that an error ended takes no SELECT; a mere COMMIT would roll it back and say nothing.
        let committed = if self.is_undone() { Err(away()) } else { self.run("SELECT 1; COMMIT") };
        if committed.is_err() {
            self.connected = None;
        }
        committed
    }

    fn roll_back(&mut self) {
        if self.is_undone() || self.run("ROLLBACK").is_err() {
            self.connected = None;
        }
    }
}

/// Before a transaction has begun.
struct Away;

impl Session for Away {
    fn execute(&self, _: &str, _: &[Value]) -> Result<u64> {
        Err(away().into())
    }

    fn query(&self, _: &str, _: &[Value]) -> Result<Vec<Row>> {
        Err(away().into())
    }

    fn replica(&self) -> i64 {
        0
    }

    fn beat(&self) -> Result<()> {
        Err(away().into())
    }
}

/// What PostgreSQL says, in the words of [`StoreError`]; it never repeats the connection string.
pub fn of(error: &tokio_postgres::Error) -> StoreError {
    let cause = error.source().map(ToString::to_string);
    match error.code() {
        _ if is_away(error) => StoreError::Away(cause.unwrap_or_else(|| error.to_string())),
        Some(code) if *code == SqlState::DISK_FULL => StoreError::Full,
        Some(code) if *code == SqlState::READ_ONLY_SQL_TRANSACTION => {
            // Another one may take them, or this one later: it is asked anew.
            StoreError::Away("PostgreSQL takes no writes: it is a standby, or set read-only".to_owned())
        }
        _ => {
            let cause = cause.map(|cause| format!(": {cause}")).unwrap_or_default();
            StoreError::Failed(format!("PostgreSQL: {error}{cause}"))
        }
    }
}

/// No connection, a broken one, or a server that starts or stops.
fn is_away(error: &tokio_postgres::Error) -> bool {
    let starting_or_stopping = [
        SqlState::CANNOT_CONNECT_NOW,
        SqlState::ADMIN_SHUTDOWN,
        SqlState::CRASH_SHUTDOWN,
        SqlState::TOO_MANY_CONNECTIONS,
    ];
    match error.code() {
        Some(code) => starting_or_stopping.contains(code),
        None => error.is_closed() || error.source().is_some_and(|cause| cause.is::<std::io::Error>()),
    }
}
