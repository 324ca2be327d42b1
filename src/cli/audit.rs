//! `callboard audit`

use clap::{Args, Subcommand};

use super::{Exit, Globals, counted, fail, print, print_json, table};
use crate::model::{AuditRow, Link};
use crate::store::{self, AuditFilter, Role, Store, StoreError};

/// Rows looked at in one step.
const PAGE: usize = 1_000;

/// Look at who was allowed or denied what, and whether the log is as it was written
///
/// Works beside a running service and without one.
#[derive(Debug, Args)]
pub struct Audit {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List rows, newest first
    List {
        /// Only those of this person, for example discord:137946317766
        #[arg(long, value_name = "PERSON")]
        person: Option<String>,
        /// Only what was denied or withheld
        #[arg(long)]
        denied: bool,
        /// At most so many
        #[arg(long, default_value_t = 50)]
        limit: usize,
        /// Print as JSON
        #[arg(long)]
        json: bool,
    },
    /// Look through the whole log; says the first row that was changed, taken out or put elsewhere
    Verify,
}

impl Audit {
    pub async fn run(self, globals: &Globals) -> Exit {
        let config = match globals.load_in_part() {
            Ok(config) => config,
            Err(exit) => return exit,
        };
        // Looking must not make an empty store in a wrong place.
        if let Err(said) = config.store.exists() {
            return match self.verb {
                Verb::List { json: true, .. } => print_json(&serde_json::json!([])),
                Verb::List { .. } => print(&format!("no audit log: {said}\n")),
                Verb::Verify => fail(Exit::Failed, &said),
            };
        }
        let done = async {
            let store = store::open(&config.store, Role::Guest).await?;
            self.verb.act(store.as_ref()).await
        };
        done.await.unwrap_or_else(|error: StoreError| fail(Exit::Failed, &error.to_string()))
    }
}

impl Verb {
    async fn act(self, store: &dyn Store) -> Result<Exit, StoreError> {
        match self {
            Verb::List { person, denied, limit, json } => {
                let rows = store.audited(&AuditFilter { person, denied, after: None, limit }).await?.rows;
                Ok(if json { print_json(&serde_json::json!(rows)) } else { print(&listed(&rows)) })
            }
            Verb::Verify => verify(store).await,
        }
    }
}

fn listed(rows: &[AuditRow]) -> String {
    if rows.is_empty() {
        return "nothing was written down\n".to_owned();
    }
    let row = |AuditRow { number, entry, .. }: &AuditRow| {
        let times = if entry.count > 1 { format!(" ({} times)", entry.count) } else { String::new() };
        let reason = if entry.reason.is_empty() { String::new() } else { format!(": {}", entry.reason) };
        [
            number.to_string(),
            entry.at.strftime("%Y-%m-%d %H:%M:%S").to_string(),
            entry.person.clone(),
            entry.room.clone(),
            entry.action.clone(),
            format!("{}{reason}{times}", entry.decision.as_str()),
        ]
    };
    table(["ROW", "AT (UTC)", "WHO", "ROOM", "WHAT", "DECISION"], &rows.iter().map(row).collect::<Vec<_>>())
}

/// Follows the chain from its beginning, or from where older rows were deleted because of their age.
async fn verify(store: &dyn Store) -> Result<Exit, StoreError> {
    let mut at: Option<Link> = None;
    let mut seen = 0;
    loop {
        let after = at.as_ref().map(|link| link.number);
        let page = store.audited(&AuditFilter { after: after.or(Some(0)), limit: PAGE, ..Default::default() }).await?;
        let from = at.take().unwrap_or(page.anchor);
        seen += page.rows.len();
        let is_last = page.rows.len() < PAGE;
        let followed = page.rows.iter().try_fold(from, |link, row| link.follow(row));
        let checked =
            followed.and_then(|link| if is_last { link.ends_at(&page.head).map(|()| link) } else { Ok(link) });
        match checked {
            Err(misfit) => {
                let said = format!("{misfit}: the audit log was changed from there on; ask who can write to the store");
                return Ok(fail(Exit::Failed, &said));
            }
            Ok(_) if is_last => return Ok(print(&format!("{} fit\n", counted(seen, "row")))),
            Ok(link) => at = Some(link),
        }
    }
}
