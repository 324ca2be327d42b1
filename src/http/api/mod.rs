//! `/api/v1`: subscriptions and deliveries for automation. One table; the router, the rights and the OpenAPI document
//! derive from it.

mod deliveries;
mod openapi;
mod subscriptions;

pub use self::openapi::document;

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodFilter, get, on};
use futures_util::future::BoxFuture;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::tokens::{Token, TokenScope};
use super::{Pages, hooks};
use crate::audit::Audit;
use crate::model::{AUTOMATION, Decision, Entry, Timestamp, Workspace, WorkspaceKey};
use crate::store::StoreError;

/// What the API needs beside what the pages show.
pub struct Automation {
    pub tokens: Vec<Token>,
    /// Names of template sets.
    pub templates: Vec<String>,
    /// What changes something is written down first.
    pub audit: Arc<Audit>,
    /// Deliveries were changed: look at them again.
    pub wake: Box<dyn Fn() + Send + Sync>,
}

/// What all addresses of the API begin with; another version would be another one.
const BASE: &str = "/api/v1";

/// The one list.
const ROUTES: [Route; 9] = [
    subscriptions::LIST,
    subscriptions::ADD,
    subscriptions::SHOW,
    subscriptions::REMOVE,
    deliveries::LIST,
    deliveries::SHOW,
    deliveries::RETRY,
    deliveries::DISCARD,
    deliveries::RETRY_DESTINATION,
];

type Describe = fn(&mut SchemaGenerator) -> Schema;

#[derive(Clone)]
struct Route {
    method: Method,
    /// Behind [`BASE`]; `{id}` is the only parameter.
    path: &'static str,
    scope: TokenScope,
    /// One sentence, imperative.
    about: &'static str,
    /// Of the words behind `?`.
    query: Option<Describe>,
    body: Option<Describe>,
    /// The answers that are no failure.
    answers: &'static [(u16, &'static str, Option<Describe>)],
    run: for<'a> fn(Call<'a>) -> BoxFuture<'a, Result<Answer, Failure>>,
}

fn describe<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<T>()
}

/// One use of the API, by a token that has the route's scope.
struct Call<'a> {
    pages: &'a Pages,
    token: &'a Token,
    id: String,
    uri: &'a Uri,
    body: Bytes,
    now: Timestamp,
}

impl Call<'_> {
    fn query<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        Query::try_from_uri(self.uri).map(|Query(query)| query).map_err(|error| Failure::wrong(error.body_text()))
    }

    fn json<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        let mut json = serde_json::Deserializer::from_slice(&self.body);
        serde_path_to_error::deserialize(&mut json).map_err(|error| {
            let path = error.path().to_string();
            let said = error.into_inner().to_string();
            Failure::wrong(if path == "." { said } else { format!("{path}: {said}") })
        })
    }

    /// Writes down what is about to be done.
    async fn audit(&self, action: &str) -> Result<(), Failure> {
        let (person, about) = (self.token.person(), if self.id.is_empty() { "" } else { &self.id });
        let entry = Entry {
            at: self.now,
            person,
            room: AUTOMATION.to_owned(),
            action: format!("{action} {about}").trim_end().to_owned(),
            decision: Decision::Allowed,
            reason: String::new(),
            count: 1,
        };
        Ok(self.pages.automation.audit.record(entry).await?)
    }

    fn workspace(&self, name: &str) -> Result<&Workspace, Failure> {
        let found = self.pages.workspaces.iter().find(|own| own.name == name && self.token.opens(name));
        found.ok_or_else(|| Failure::wrong(format!("workspace: this token opens no workspace {name:?}")))
    }

    /// The workspace, where the token opens it.
    fn opened(&self, key: &WorkspaceKey) -> Option<&Workspace> {
        self.pages.workspaces.iter().find(|own| own.key() == *key && self.token.opens(&own.name))
    }
}

struct Answer {
    status: StatusCode,
    location: Option<String>,
    body: Option<Value>,
}

impl Answer {
    fn of(status: StatusCode, body: &impl Serialize) -> Result<Answer, Failure> {
        let body = serde_json::to_value(body).map_err(|error| Failure::ours(error.to_string()))?;
        Ok(Answer { status, location: None, body: Some(body) })
    }

    fn empty() -> Answer {
        Answer { status: StatusCode::NO_CONTENT, location: None, body: None }
    }
}

/// Why a request was not obeyed: problem details, <https://www.rfc-editor.org/rfc/rfc9457>.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Problem")]
struct Failure {
    status: u16,
    title: &'static str,
    /// What was wrong and what to do.
    detail: String,
}

impl Failure {
    fn new(status: StatusCode, detail: impl Into<String>) -> Failure {
        Failure { status: status.as_u16(), title: status.canonical_reason().unwrap_or_default(), detail: detail.into() }
    }

    fn wrong(detail: impl Into<String>) -> Failure {
        Failure::new(StatusCode::BAD_REQUEST, detail)
    }

    /// Whatever is not there, and whatever the token may not see.
    fn not_found(what: &str) -> Failure {
        Failure::new(StatusCode::NOT_FOUND, format!("there is no such {what}, or this token may not see it"))
    }

    fn conflict(detail: impl Into<String>) -> Failure {
        Failure::new(StatusCode::CONFLICT, detail)
    }

    /// Logged with a reference, which alone is told.
    fn ours(said: String) -> Failure {
        let reference: String = uuid::Uuid::new_v4().simple().to_string().chars().take(8).collect();
        tracing::error!(reference, error = said, "a request to the API failed");
        let detail = format!("that went wrong on our side; the log knows it as {reference}");
        Failure::new(StatusCode::INTERNAL_SERVER_ERROR, detail)
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Failure {
        let unavailable = |said: &str| Failure::new(StatusCode::SERVICE_UNAVAILABLE, said);
        match error {
            StoreError::Full => unavailable("the disk is full; nothing was changed"),
            StoreError::Away(_) => unavailable("the database does not answer; try again later"),
            other => Failure::ours(other.to_string()),
        }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = serde_json::to_string(&self).unwrap_or_default();
        let mut response = (status, [(header::CONTENT_TYPE, "application/problem+json")], body).into_response();
        if status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, header::HeaderValue::from_static("Bearer"));
        }
        response
    }
}

pub(super) fn router() -> Router<Arc<Pages>> {
    let document = get(|| async { axum::Json(document()) });
    ROUTES.into_iter().fold(Router::new().route("/api/v1/openapi.json", document), |router, route| {
        let path = format!("{BASE}{}", route.path);
        let filter = MethodFilter::try_from(route.method.clone()).unwrap_or(MethodFilter::GET);
        let serve = move |pages, id: Option<Path<String>>, uri, headers, body| {
            serve(route.clone(), pages, id, uri, headers, body)
        };
        router.route(&path, on(filter, serve))
    })
}

async fn serve(
    route: Route,
    State(pages): State<Arc<Pages>>,
    id: Option<Path<String>>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let answer = async {
        let token = authorise(&pages, &headers, route.scope)?;
        let body = hooks::read(body).await.map_err(|status| Failure::new(status, "send at most 64 KiB, within 5 s"))?;
        let id = id.map(|Path(id)| id).unwrap_or_default();
        let now = (pages.clock)();
        (route.run)(Call { pages: &pages, token, id, uri: &uri, body, now }).await
    };
    match answer.await {
        Ok(Answer { status, location, body }) => {
            let mut response = match body {
                Some(body) => (status, axum::Json(body)).into_response(),
                None => status.into_response(),
            };
            let location = location.and_then(|location| header::HeaderValue::try_from(location).ok());
            if let Some(location) = location {
                response.headers_mut().insert(header::LOCATION, location);
            }
            response
        }
        Err(failure) => failure.into_response(),
    }
}

/// The token that the request carries, where it has the scope.
fn authorise<'a>(pages: &'a Pages, headers: &HeaderMap, scope: TokenScope) -> Result<&'a Token, Failure> {
    let mut carried = headers.get_all(header::AUTHORIZATION).iter();
    let presented = match (carried.next(), carried.next()) {
        (Some(value), None) => value.to_str().ok().and_then(|value| value.split_once(' ')),
        _ => None,
    };
    let presented =
        presented.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")).map(|(_, token)| token.trim());
    let found = presented.and_then(|presented| pages.automation.tokens.iter().find(|token| token.is(presented)));
    let Some(token) = found else {
        let said = "send `Authorization: Bearer` with a token of [[server.tokens]]";
        return Err(Failure::new(StatusCode::UNAUTHORIZED, said));
    };
    if !token.may(scope) {
        let said = format!("this token lacks the scope {}", scope.as_str());
        return Err(Failure::new(StatusCode::FORBIDDEN, said));
    }
    Ok(token)
}
