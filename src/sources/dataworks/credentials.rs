//! Where the access key comes from: the settings, else the official default chain.
//!
//! The chain's providers are those of `reqsign-aliyun-oss`, put in the official order and given the official names
//! only. <https://www.alibabacloud.com/help/en/sdk/developer-reference/v2-manage-python-access-credentials>

use std::time::Duration;

use bytes::Bytes;
use reqsign_aliyun_oss::{
    AssumeRoleWithOidcCredentialProvider, ConfigFileCredentialProvider, Credential, CredentialsFileCredentialProvider,
    CredentialsUriCredentialProvider, EcsRamRoleCredentialProvider, EnvCredentialProvider,
};
use reqsign_core::{Context, Env as _, Error, FileRead, HttpSend, OsEnv, ProvideCredentialDyn, StaticEnv};
use secrecy::SecretString;
use tokio::sync::Mutex;

use super::loose::Loose;
use crate::model::Timestamp;
use crate::settings::SecretError;
use crate::sources::SourceErrorKind;

/// Temporary credentials are renewed when less than this is left, as the official SDKs do.
const RENEW_BEFORE: Duration = Duration::from_secs(15 * 60);
/// After a failed renewal nobody tries again for this long.
const PAUSE: Duration = Duration::from_secs(10);
/// The instance's metadata service answers at once or is not there.
const METADATA_DEADLINE: Duration = Duration::from_secs(1);
const METADATA_HOST: &str = "100.100.100.200";
const DEADLINE: Duration = Duration::from_secs(4);
/// Credentials answers and files are a few kilobytes.
const LIMIT: usize = 256 * 1024;

/// What a request is signed with.
#[derive(Debug, Clone)]
pub struct AccessKey {
    pub id: String,
    pub secret: SecretString,
    /// With temporary credentials of STS.
    pub token: Option<SecretString>,
}

/// Not printable, nor is what it is made of: the environment holds secrets.
pub enum Credentials {
    /// Read anew on each use, so that a rotated file counts at once.
    Settings(super::Credentials),
    Chain(Box<Chain>),
}

impl Credentials {
    pub fn new(settings: Option<&super::Credentials>, client: reqwest::Client) -> Credentials {
        match settings {
            Some(settings) => Credentials::Settings(settings.clone()),
            None => Credentials::Chain(Box::new(Chain::new(environment(), Disk, Sender(client)))),
        }
    }

    /// The key to sign with at `now`. Err is always [`SourceErrorKind::Credentials`].
    pub async fn get(&self, now: Timestamp) -> Result<AccessKey, SourceErrorKind> {
        match self {
            Credentials::Settings(settings) => {
                configured(settings).map_err(|(key, error)| SourceErrorKind::Credentials {
                    said: error.to_string(),
                    hint: format!("check dataworks.credentials.{key}"),
                })
            }
            Credentials::Chain(chain) => chain.get(now).await,
        }
    }

    /// DataWorks refused the key: what is held of it is looked up anew, so that one that was replaced before its time
    /// counts at the next call.
    pub async fn forget(&self) {
        if let Credentials::Chain(chain) = self {
            chain.state.lock().await.held = None;
        }
    }
}

fn configured(settings: &super::Credentials) -> Result<AccessKey, (&'static str, SecretError)> {
    use secrecy::ExposeSecret as _;
    let id = settings.access_key_id.read().map_err(|error| ("access_key_id", error))?;
    let secret = settings.access_key_secret.read().map_err(|error| ("access_key_secret", error))?;
    let token = settings.security_token.as_ref().map(|token| token.read().map_err(|error| ("security_token", error)));
    Ok(AccessKey { id: id.expose_secret().trim().to_owned(), secret, token: token.transpose()? })
}

/// The official default chain. One renewal at a time: whoever comes meanwhile waits for it and shares its outcome.
pub struct Chain {
    context: Context,
    places: Vec<Place>,
    state: Mutex<State>,
}

/// One place to look in, and its words for people.
struct Place {
    words: &'static str,
    provider: Box<dyn ProvideCredentialDyn<Credential = Credential>>,
}

#[derive(Default)]
struct State {
    /// Index of the place that worked; from then on only that one is asked, so that a passing failure never puts
    /// another identity in its place.
    place: Option<usize>,
    held: Option<Credential>,
    failed: Option<(Timestamp, SourceErrorKind)>,
}

impl Chain {
    pub fn new(env: StaticEnv, files: impl FileRead, http: impl HttpSend) -> Chain {
        let places = places(&env);
        let context = Context::new().with_env(env).with_file_read(files).with_http_send(http);
        Chain { context, places, state: Mutex::default() }
    }

    async fn get(&self, now: Timestamp) -> Result<AccessKey, SourceErrorKind> {
        let mut state = self.state.lock().await;
        let usable = |held: &&Credential| left(held, now).is_some_and(|left| left > Duration::ZERO);
        if let Some(held) = state.held.as_ref().filter(|held| left(held, now).is_some_and(|left| left > RENEW_BEFORE)) {
            return Ok(access_key(held));
        }
        let paused = state.failed.as_ref().filter(|(at, _)| now.duration_since(*at).unsigned_abs() < PAUSE);
        let outcome = match paused {
            Some((_, error)) => Err(error.clone()),
            None => self.load(state.place).await,
        };
        match outcome {
            Ok((place, credential)) => {
                let key = access_key(&credential);
                // Without an end it may be replaced at any moment: looked up on each use, which costs one small file.
                let held = credential.expires_in.is_some().then_some(credential);
                *state = State { place: Some(place), held, failed: None };
                Ok(key)
            }
            Err(error) => {
                if paused.is_none() {
                    tracing::warn!(%error, "could not renew the credentials");
                    state.failed = Some((now, error.clone()));
                }
                state.held.as_ref().filter(usable).map(access_key).ok_or(error)
            }
        }
    }

    async fn load(&self, worked: Option<usize>) -> Result<(usize, Credential), SourceErrorKind> {
        let mut failures = Vec::new();
        for (index, place) in self.places.iter().enumerate().filter(|(index, _)| worked.is_none_or(|w| w == *index)) {
            match place.provider.provide_credential_dyn(&self.context).await {
                Ok(Some(credential)) => {
                    tracing::debug!(place = place.words, "found credentials");
                    return Ok((index, credential));
                }
                Ok(None) => {}
                Err(error) => failures.push(format!("{}: {}", place.words, reason(&error))),
            }
        }
        let looked: Vec<&str> = self.places.iter().map(|place| place.words).collect();
        let failures = if failures.is_empty() { String::new() } else { format!(" ({})", failures.join("; ")) };
        Err(SourceErrorKind::Credentials {
            said: format!("no credentials for Alibaba Cloud were found{failures}"),
            hint: format!("set dataworks.credentials, or one of the places looked in: {}", looked.join(", ")),
        })
    }
}

/// How long a credential that ends still lasts; `None` once it has ended.
fn left(credential: &Credential, now: Timestamp) -> Option<Duration> {
    let seconds = credential.expires_in?.as_second().checked_sub(now.as_second())?;
    u64::try_from(seconds).ok().map(Duration::from_secs)
}

fn access_key(credential: &Credential) -> AccessKey {
    AccessKey {
        id: credential.access_key_id.clone(),
        secret: credential.access_key_secret.clone().into(),
        token: credential.security_token.clone().map(SecretString::from),
    }
}

/// The chain in the official order.
fn places(env: &StaticEnv) -> Vec<Place> {
    fn place(words: &'static str, provider: impl ProvideCredentialDyn<Credential = Credential>) -> Place {
        Place { words, provider: Box::new(provider) }
    }
    let var = |name: &str| env.var(name);
    let disabled = |name: &str| var(name).is_some_and(|value| value.eq_ignore_ascii_case("true"));

    let mut places = vec![
        place("the environment (ALIBABA_CLOUD_ACCESS_KEY_ID and _SECRET)", EnvCredentialProvider::new()),
        place("OIDC (ALIBABA_CLOUD_ROLE_ARN, _OIDC_PROVIDER_ARN and _OIDC_TOKEN_FILE)", oidc(env)),
    ];
    if !disabled("ALIBABA_CLOUD_CLI_PROFILE_DISABLED") {
        let words = "~/.aliyun/config.json (a profile of mode AK or StsToken)";
        places.push(place(words, ConfigFileCredentialProvider::new()));
    }
    places.push(place("~/.alibabacloud/credentials.ini", CredentialsFileCredentialProvider::new()));
    if var("ALIBABA_CLOUD_CREDENTIALS_FILE").is_none() {
        let node = CredentialsFileCredentialProvider::new().with_credentials_file("~/.alibabacloud/credentials");
        places.push(place("~/.alibabacloud/credentials", node));
    }
    if !disabled("ALIBABA_CLOUD_ECS_METADATA_DISABLED") {
        places.push(place("the instance's RAM role", EcsRamRoleCredentialProvider::new()));
    }
    places.push(place("ALIBABA_CLOUD_CREDENTIALS_URI", CredentialsUriCredentialProvider::new()));
    places
}

fn oidc(env: &StaticEnv) -> AssumeRoleWithOidcCredentialProvider {
    let provider = AssumeRoleWithOidcCredentialProvider::new();
    let provider = match env.var("ALIBABA_CLOUD_ROLE_SESSION_NAME") {
        Some(name) => provider.with_role_session_name(name),
        None => provider.with_role_session_name("callboard"),
    };
    let vpc = env.var("ALIBABA_CLOUD_VPC_ENDPOINT_ENABLED").is_some_and(|on| on.eq_ignore_ascii_case("true"));
    match (env.var("ALIBABA_CLOUD_STS_ENDPOINT"), env.var("ALIBABA_CLOUD_STS_REGION")) {
        (None, Some(region)) => {
            let host = if vpc { "sts-vpc" } else { "sts" };
            provider.with_sts_endpoint(format!("https://{host}.{region}.aliyuncs.com"))
        }
        _ => provider,
    }
}

/// Why a place failed: the vendor's error code where it gave one, else the kind of failure. Never the message, which
/// may repeat an address or an answer.
fn reason(error: &Error) -> String {
    let message = error.to_string();
    let body = message.find('{').and_then(|start| message.get(start..));
    let code = body.and_then(|body| Loose::parse(body.as_bytes()).ok()).and_then(|body| body.get("Code").text());
    code.map_or_else(|| error.kind().to_string(), |code| super::errors::excerpt(&code))
}

/// The official variables as the process started, without those of OSS that the providers would also take. An empty
/// variable counts as none.
fn environment() -> StaticEnv {
    let official = |(name, value): &(String, String)| name.starts_with("ALIBABA_CLOUD_") && !value.is_empty();
    let readable =
        std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    StaticEnv { home_dir: OsEnv.home_dir(), envs: readable.filter(official).collect() }
}

#[derive(Debug)]
struct Disk;

impl FileRead for Disk {
    async fn file_read(&self, path: &str) -> reqsign_core::Result<Vec<u8>> {
        use tokio::io::AsyncReadExt as _;
        let failed = |error: std::io::Error| Error::config_invalid(format!("can't read the file: {}", error.kind()));
        let file = tokio::fs::File::open(path).await.map_err(failed)?;
        let mut content = Vec::new();
        file.take(LIMIT as u64).read_to_end(&mut content).await.map_err(failed)?;
        Ok(content)
    }
}

/// Sends the chain's requests through the program's own client.
struct Sender(reqwest::Client);

impl std::fmt::Debug for Sender {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sender")
    }
}

impl HttpSend for Sender {
    async fn http_send(&self, request: http::Request<Bytes>) -> reqsign_core::Result<http::Response<Bytes>> {
        let failed = |what: &str| Error::unexpected(what).set_retryable(true);
        let metadata = request.uri().host() == Some(METADATA_HOST);
        let deadline = if metadata { METADATA_DEADLINE } else { DEADLINE };
        let request = reqwest::Request::try_from(request).map_err(|_| failed("the address is wrong"))?;
        let exchange = async {
            let mut response = self.0.execute(request).await.map_err(|_| failed("not reachable"))?;
            let status = response.status();
            let body = super::read_body(&mut response, LIMIT).await.map_err(|_| failed("no whole answer"))?;
            http::Response::builder().status(status).body(Bytes::from(body)).map_err(|_| failed("no answer"))
        };
        tokio::time::timeout(deadline, exchange).await.map_err(|_| failed("no answer in time"))?
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use secrecy::ExposeSecret as _;

    use super::*;

    /// A machine with files and a network that answers by address.
    #[derive(Debug, Clone, Default)]
    struct Machine {
        files: HashMap<String, String>,
        answers: Arc<std::sync::Mutex<HashMap<&'static str, (u16, String)>>>,
        requests: Arc<AtomicUsize>,
    }

    impl FileRead for Machine {
        async fn file_read(&self, path: &str) -> reqsign_core::Result<Vec<u8>> {
            self.files.get(path).map(|text| text.clone().into_bytes()).ok_or_else(|| Error::config_invalid("no file"))
        }
    }

    impl HttpSend for Machine {
        async fn http_send(&self, request: http::Request<Bytes>) -> reqsign_core::Result<http::Response<Bytes>> {
            self.requests.fetch_add(1, Ordering::SeqCst);
            // Others get their turn while this one is under way.
            tokio::task::yield_now().await;
            let url = request.uri().to_string();
            let answers = self.answers.lock().unwrap();
            let answer = answers.iter().find(|(part, _)| url.contains(**part));
            let (status, body) =
                answer.map(|(_, answer)| answer.clone()).ok_or_else(|| Error::unexpected("refused"))?;
            Ok(http::Response::builder().status(status).body(Bytes::from(body)).unwrap())
        }
    }

    impl Machine {
        fn answer(&self, part: &'static str, status: u16, body: impl Into<String>) {
            self.answers.lock().unwrap().insert(part, (status, body.into()));
        }

        fn chain(&self, env: &[(&str, &str)]) -> Chain {
            let envs = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            Chain::new(StaticEnv { home_dir: Some("/home/me".into()), envs }, self.clone(), self.clone())
        }
    }

    const OIDC: [(&str, &str); 3] = [
        ("ALIBABA_CLOUD_ROLE_ARN", "acs:ram::1:role/r"),
        ("ALIBABA_CLOUD_OIDC_PROVIDER_ARN", "acs:ram::1:oidc-provider/p"),
        ("ALIBABA_CLOUD_OIDC_TOKEN_FILE", "/token"),
    ];

    fn sts(id: &str, expiration: &str) -> String {
        format!(
            r#"{{"Credentials":{{"AccessKeyId":"{id}","AccessKeySecret":"s","SecurityToken":"t","Expiration":"{expiration}"}}}}"#
        )
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    async fn id(chain: &Chain, now: &str) -> String {
        chain.get(at(now)).await.map_or_else(|error| error.to_string(), |key| key.id)
    }

    fn machine_with_everything() -> Machine {
        let profile =
            r#"{"current":"p","profiles":[{"name":"p","mode":"AK","access_key_id":"cli","access_key_secret":"s"}]}"#;
        let shared = "[default]\ntype = access_key\naccess_key_id = shared\naccess_key_secret = s\n";
        let mut machine = Machine::default();
        machine.files.insert("/token".into(), "the-oidc-token".into());
        machine.files.insert("/home/me/.aliyun/config.json".into(), profile.into());
        machine.files.insert("/home/me/.alibabacloud/credentials".into(), shared.into());
        machine.answer("sts.aliyuncs.com", 200, sts("oidc", "2026-01-01T12:00:00Z"));
        let role = r#"{"Code":"Success","AccessKeyId":"instance","AccessKeySecret":"s","SecurityToken":"t","Expiration":"2026-01-01T12:00:00Z"}"#;
        machine.answer("latest/meta-data/ram/security-credentials/", 200, role);
        machine
    }

    #[tokio::test]
    async fn the_order_is_the_official_one() {
        const NOW: &str = "2026-01-01T11:00:00Z";
        let mut machine = machine_with_everything();
        let keys = [("ALIBABA_CLOUD_ACCESS_KEY_ID", "env"), ("ALIBABA_CLOUD_ACCESS_KEY_SECRET", "s")];
        let all: Vec<_> = keys.into_iter().chain(OIDC).collect();
        assert_eq!(id(&machine.chain(&all), NOW).await, "env");
        assert_eq!(id(&machine.chain(&OIDC), NOW).await, "oidc", "on a pod, not the node's role");
        assert_eq!(id(&machine.chain(&[]), NOW).await, "cli");
        let no_cli = [("ALIBABA_CLOUD_CLI_PROFILE_DISABLED", "true")];
        assert_eq!(id(&machine.chain(&no_cli), NOW).await, "shared", "under the name Node's SDK uses");
        machine.files.clear();
        let role = [("ALIBABA_CLOUD_ECS_METADATA", "role")];
        assert_eq!(id(&machine.chain(&role), NOW).await, "instance");
    }

    #[tokio::test]
    async fn no_credentials_anywhere_says_where_we_looked() {
        let error = Machine::default().chain(&[]).get(at("2026-01-01T11:00:00Z")).await.unwrap_err();
        let SourceErrorKind::Credentials { said, hint } = error else { panic!("{error:?}") };
        assert!(said.contains("no credentials"), "{said}");
        for place in ["ALIBABA_CLOUD_ACCESS_KEY_ID", "OIDC", "config.json", "credentials.ini", "RAM role", "_URI"] {
            assert!(hint.contains(place), "{place} is missing in: {hint}");
        }
    }

    #[tokio::test]
    async fn renewed_in_time_and_a_failed_renewal_keeps_what_is_still_valid() {
        let machine = machine_with_everything();
        let chain = machine.chain(&OIDC);
        assert_eq!(id(&chain, "2026-01-01T11:00:00Z").await, "oidc");
        assert_eq!(id(&chain, "2026-01-01T11:44:59Z").await, "oidc");
        assert_eq!(machine.requests.load(Ordering::SeqCst), 1, "nothing to renew yet");

        machine.answer("sts.aliyuncs.com", 400, r#"{"Code":"AuthenticationFail.NoPermission","Message":"no"}"#);
        assert_eq!(id(&chain, "2026-01-01T11:45:00Z").await, "oidc", "still valid for 15 minutes");
        assert_eq!(id(&chain, "2026-01-01T11:45:05Z").await, "oidc");
        assert_eq!(machine.requests.load(Ordering::SeqCst), 2, "a failed renewal is not repeated at once");
        let ended = id(&chain, "2026-01-01T12:00:00Z").await;
        assert!(ended.contains("AuthenticationFail.NoPermission"), "another identity must not step in: {ended}");
        assert!(!ended.contains("the-oidc-token"), "{ended}");

        machine.answer("sts.aliyuncs.com", 200, sts("renewed", "2026-01-01T14:00:00Z"));
        assert_eq!(id(&chain, "2026-01-01T12:00:20Z").await, "renewed");
    }

    #[tokio::test]
    async fn a_key_that_was_refused_is_looked_up_again_before_its_end() {
        let machine = machine_with_everything();
        let credentials = Credentials::Chain(Box::new(machine.chain(&OIDC)));
        let now = at("2026-01-01T11:00:00Z");
        assert_eq!(credentials.get(now).await.unwrap().id, "oidc");
        machine.answer("sts.aliyuncs.com", 200, sts("rotated", "2026-01-01T14:00:00Z"));
        assert_eq!(credentials.get(now).await.unwrap().id, "oidc", "a key that passes is held");
        credentials.forget().await;
        assert_eq!(credentials.get(now).await.unwrap().id, "rotated");
    }

    #[tokio::test]
    async fn callers_at_the_same_time_share_one_renewal() {
        let machine = machine_with_everything();
        let chain = machine.chain(&OIDC);
        let now = "2026-01-01T11:00:00Z";
        let ids = tokio::join!(id(&chain, now), id(&chain, now), id(&chain, now));
        assert_eq!(ids, ("oidc".into(), "oidc".into(), "oidc".into()));
        assert_eq!(machine.requests.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn the_chain_works_over_a_real_disk_and_a_real_network() {
        let folder = tempfile::tempdir().unwrap();
        let shared = folder.path().join("shared.ini");
        let chain = |env: [(&str, String); 2]| {
            let off = ("ALIBABA_CLOUD_ECS_METADATA_DISABLED".to_owned(), "true".to_owned());
            let envs = env.into_iter().map(|(name, value)| (name.to_owned(), value)).chain([off]).collect();
            let client = reqwest::Client::builder().no_proxy().build().unwrap();
            Chain::new(StaticEnv { home_dir: Some(folder.path().into()), envs }, Disk, Sender(client))
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let uri = format!("http://{}/credentials", listener.local_addr().unwrap());
        let answer = r#"{"Code":"Success","AccessKeyId":"uri","AccessKeySecret":"s","SecurityToken":"t","Expiration":"2026-01-01T12:00:00Z"}"#;
        let router = axum::Router::new().route("/credentials", axum::routing::get(move || async move { answer }));
        tokio::spawn(async move { axum::serve(listener, router).await });

        let env = || {
            [
                ("ALIBABA_CLOUD_CREDENTIALS_FILE", shared.display().to_string()),
                ("ALIBABA_CLOUD_CREDENTIALS_URI", uri.clone()),
            ]
        };
        let key = chain(env()).get(at("2026-01-01T11:00:00Z")).await.unwrap();
        assert_eq!((key.id.as_str(), key.token.is_some()), ("uri", true));
        std::fs::write(&shared, "[default]\naccess_key_id = disk\naccess_key_secret = s\n").unwrap();
        assert_eq!(id(&chain(env()), "2026-01-01T11:00:00Z").await, "disk");
    }

    #[tokio::test]
    async fn a_rotated_secret_file_counts_at_once_and_is_never_shown() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        let settings = super::super::Credentials {
            access_key_id: crate::settings::Secret::Literal("id".to_owned().into()),
            access_key_secret: crate::settings::Secret::File(crate::settings::FromFile { file: path.clone() }),
            security_token: None,
        };
        let credentials = Credentials::Settings(settings);
        let now = at("2026-01-01T11:00:00Z");
        assert!(credentials.get(now).await.unwrap_err().to_string().contains("access_key_secret"));
        for secret in ["first", "second"] {
            std::fs::write(&path, format!("{secret}\n")).unwrap();
            let key = credentials.get(now).await.unwrap();
            assert_eq!(key.secret.expose_secret(), secret);
            assert!(!format!("{key:?}").contains(secret), "the secret is in the debug output");
        }
    }
}
