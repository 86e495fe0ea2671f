//! What a call says outside its message: who calls, from where, and until when.

use std::{net::SocketAddr, time::Duration};

use rocketmq_proto::v2::Code;
use tokio::time::Instant;
use tonic::{Request, metadata::MetadataMap};

use crate::service::fault::Injected;
use crate::{
    access::Signature,
    state::{Refusal, Signer},
};

const CLIENT_ID: &str = "x-mq-client-id";
const LANGUAGE: &str = "x-mq-language";
const VERSION: &str = "x-mq-client-version";
const DEADLINE: &str = "grpc-timeout";
/// Clients from this version on know every code; the text decides, as on the real server.
const KNOWS_EVERY_CODE: &str = "5.0.3";

/// What the real server can read; anything else is an internal error there.
const LANGUAGES: [&str; 14] = [
    "JAVA", "CPP", "DOTNET", "PYTHON", "DELPHI", "ERLANG", "RUBY", "OTHER", "HTTP", "GO", "PHP",
    "OMS", "RUST", "NODE_JS",
];

/// The other end of a connection; absent in memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer(pub(crate) Option<SocketAddr>);

/// The caller of a method.
#[derive(Clone, Debug)]
pub(crate) struct Context {
    client: String,
    language: String,
    /// The client is so old that it gets a plain BAD_REQUEST instead of the newer codes.
    old: bool,
    peer: Option<SocketAddr>,
    deadline: Option<Instant>,
    signer: Result<Signer, Refusal>,
    injected: Option<Refusal>,
}

impl Context {
    pub(crate) fn of<T>(request: &Request<T>) -> Self {
        let metadata = request.metadata();
        let signature = request.extensions().get::<Signature>();
        let timeout = parse_timeout(text(metadata, DEADLINE));
        Self {
            client: text(metadata, CLIENT_ID).to_owned(),
            language: text(metadata, LANGUAGE).to_owned(),
            old: text(metadata, VERSION) < KNOWS_EVERY_CODE,
            peer: request.extensions().get::<Peer>().and_then(|peer| peer.0),
            deadline: timeout.and_then(|timeout| Instant::now().checked_add(timeout)),
            injected: request
                .extensions()
                .get()
                .map(|Injected(refusal)| refusal.clone()),
            signer: signature.map_or_else(|| Ok(Signer::default()), |s| s.0.clone()),
        }
    }

    /// Who has signed the call, as every call must be if the broker has users.
    pub(crate) fn signer(&self) -> Result<&Signer, Refusal> {
        self.signer.as_ref().map_err(Clone::clone)
    }

    /// The client id, which every call must carry, after its signature.
    pub(crate) fn client(&self) -> Result<&str, Refusal> {
        self.signer()?;
        if let Some(refusal) = &self.injected {
            return Err(refusal.clone());
        }
        if self.client.trim().is_empty() {
            return Err(Refusal::new(
                Code::ClientIdRequired,
                "client id cannot be empty",
            ));
        }
        Ok(&self.client)
    }

    /// A client that introduces itself or sends a heartbeat must name its language, in a word that
    /// the real server can read.
    pub(crate) fn language(&self) -> Result<(), Refusal> {
        let language = self.language.as_str();
        if LANGUAGES.contains(&language) {
            return Ok(());
        }
        let message = format!("no enum constant LanguageCode.{language} in header {LANGUAGE}");
        Err(Refusal::new(Code::InternalServerError, message))
    }

    pub(crate) fn is_old(&self) -> bool {
        self.old
    }

    pub(crate) fn peer(&self) -> String {
        self.peer
            .map_or_else(|| "in-memory".to_owned(), |peer| peer.to_string())
    }

    /// What is left of the call's deadline.
    pub(crate) fn remaining(&self) -> Option<Duration> {
        self.deadline
            .map(|deadline| deadline.saturating_duration_since(Instant::now()))
    }
}

fn text<'a>(metadata: &'a MetadataMap, key: &str) -> &'a str {
    metadata
        .get(key)
        .and_then(|value| std::str::from_utf8(value.as_bytes()).ok())
        .unwrap_or_default()
}

/// Reads the header `grpc-timeout`: up to eight digits and a unit.
fn parse_timeout(value: &str) -> Option<Duration> {
    let unit = value.chars().last()?;
    let amount: u64 = value.get(..value.len() - unit.len_utf8())?.parse().ok()?;
    Some(match unit {
        'H' => Duration::from_secs(amount.checked_mul(3600)?),
        'M' => Duration::from_secs(amount.checked_mul(60)?),
        'S' => Duration::from_secs(amount),
        'm' => Duration::from_millis(amount),
        'u' => Duration::from_micros(amount),
        'n' => Duration::from_nanos(amount),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_every_unit_of_a_timeout() {
        assert_eq!(parse_timeout("2H"), Some(Duration::from_secs(7200)));
        assert_eq!(parse_timeout("3M"), Some(Duration::from_secs(180)));
        assert_eq!(parse_timeout("4S"), Some(Duration::from_secs(4)));
        assert_eq!(parse_timeout("5000m"), Some(Duration::from_secs(5)));
        assert_eq!(parse_timeout("6u"), Some(Duration::from_micros(6)));
        assert_eq!(parse_timeout("7n"), Some(Duration::from_nanos(7)));
    }

    #[test]
    fn ignores_a_timeout_that_it_cannot_read() {
        for text in ["", "5", "S", "5x", "-1S", "5é"] {
            assert_eq!(parse_timeout(text), None, "{text:?}");
        }
    }
}
