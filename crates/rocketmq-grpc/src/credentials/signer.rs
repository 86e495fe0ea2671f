//! Signs requests, and gets other credentials when a server refuses those in use.

use std::{
    fmt::{self, Write as _},
    panic::AssertUnwindSafe,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::FutureExt as _;
use hmac::{Hmac, KeyInit as _, Mac as _};
use http::{HeaderMap, HeaderName, HeaderValue, header::AUTHORIZATION};
use sha1::Sha1;
use tokio::time::Instant;
use tracing::{info, warn};

use super::{Credentials, Provider};
use crate::{BoxError, Error, error::chain};

const SESSION_TOKEN: HeaderName = HeaderName::from_static("x-mq-session-token");
/// The provider is not asked more often than that, whoever is refused.
const REFRESH_INTERVAL: Duration = Duration::from_secs(1);

/// Shared by all producers and consumers of a client.
pub(crate) struct Signer {
    provider: Provider,
    /// How long the provider may take.
    timeout: Duration,
    keys: Mutex<Option<Keys>>,
    /// Held while the provider is asked.
    asking: tokio::sync::Mutex<Asked>,
}

#[derive(Default)]
struct Asked {
    /// When it was last asked for others than those in use, or answered that.
    for_others: Option<Instant>,
    /// Its last failure while there were none in use.
    failed: Option<(Error, Instant)>,
}

struct Keys {
    credentials: Credentials,
    since: Instant,
    session_token: Option<HeaderValue>,
    /// The last signature, and the date that it is of: the date changes once a second.
    signed: Option<(HeaderValue, HeaderValue)>,
}

impl Signer {
    pub(crate) fn new(provider: Provider, timeout: Duration) -> Self {
        Self {
            provider,
            timeout,
            keys: Mutex::default(),
            asking: tokio::sync::Mutex::default(),
        }
    }

    /// Gets credentials if there are none yet.
    pub(crate) async fn prepare(&self) -> Result<(), Error> {
        if self.keys().is_some() {
            return Ok(());
        }
        let came_at = Instant::now();
        let mut asked = self.asking.lock().await;
        if self.keys().is_some() {
            return Ok(());
        }
        // Who waited for the answer shares its failure: in turn, each would wait for its own.
        if let Some((error, at)) = &asked.failed
            && *at > came_at
        {
            return Err(error.clone());
        }
        let answer = self.ask().await.map(drop);
        asked.failed = answer.clone().err().map(|it| (it, Instant::now()));
        answer
    }

    /// True if there are other credentials now than those of a request that was sent at `sent_at`,
    /// and refused.
    pub(crate) async fn refresh(&self, sent_at: Instant) -> bool {
        let mut asked = self.asking.lock().await;
        if self.keys().as_ref().is_some_and(|it| it.since > sent_at) {
            return true;
        }
        if asked
            .for_others
            .is_some_and(|at| at.elapsed() < REFRESH_INTERVAL)
        {
            return false;
        }
        asked.for_others = Some(Instant::now());
        let answer = self.ask().await;
        // Those who waited for it do not ask again.
        asked.for_others = Some(Instant::now());
        match answer {
            Ok(changed) => changed,
            Err(error) => {
                warn!(error = %chain(&error), "no other credentials, those in use stay in use");
                false
            }
        }
    }

    /// Adds the signature of the date, and the session token.
    pub(crate) fn sign(&self, date: &HeaderValue, headers: &mut HeaderMap) {
        let mut keys = self.keys();
        let Some(keys) = &mut *keys else {
            // Answered with UNAUTHORIZED. Requests that are signed are prepared for before.
            return;
        };
        if keys.signed.as_ref().is_none_or(|(of, _)| of != date)
            && let Ok(mut signature) = HeaderValue::try_from(signature(&keys.credentials, date))
        {
            signature.set_sensitive(true);
            keys.signed = Some((date.clone(), signature));
        }
        if let Some((_, signature)) = &keys.signed {
            headers.insert(AUTHORIZATION, signature.clone());
        }
        if let Some(token) = &keys.session_token {
            headers.insert(SESSION_TOKEN, token.clone());
        }
    }

    /// True if the credentials are others than before.
    async fn ask(&self) -> Result<bool, Error> {
        let asking = AssertUnwindSafe(async { self.provider.0.credentials().await });
        let answer = tokio::time::timeout(self.timeout, asking.catch_unwind()).await;
        let credentials = match answer {
            Ok(Ok(Ok(credentials))) => credentials,
            Ok(Ok(Err(error))) => return Err(Error::no_credentials(error)),
            Ok(Err(_)) => {
                return Err(Error::no_credentials("the provider panicked".into()));
            }
            Err(_) => {
                let late = format!("no answer within {:?}", self.timeout);
                return Err(Error::no_credentials(BoxError::from(late)));
            }
        };
        let fresh = Keys::new(credentials)?;
        let mut keys = self.keys();
        let changed = keys
            .as_ref()
            .is_none_or(|it| it.credentials != fresh.credentials);
        if changed {
            info!(
                access_key = fresh.credentials.access_key,
                "signing with credentials of the provider"
            );
            *keys = Some(fresh);
        }
        Ok(changed)
    }

    fn keys(&self) -> MutexGuard<'_, Option<Keys>> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Signer")
    }
}

impl Keys {
    fn new(credentials: Credentials) -> Result<Self, Error> {
        let odd = |it: char| !it.is_ascii_graphic() || it == ',' || it == '/';
        if credentials.access_key.is_empty() || credentials.access_key.contains(odd) {
            let key = &credentials.access_key;
            return Err(Error::config(format!(
                "access key {key:?} is empty, or has characters that a signature cannot carry"
            )));
        }
        let session_token = match &credentials.session_token {
            None => None,
            Some(token) => {
                let mut token = HeaderValue::try_from(token)
                    .map_err(|_| Error::config("the session token is no value of a header"))?;
                token.set_sensitive(true);
                Some(token)
            }
        };
        Ok(Self {
            credentials,
            since: Instant::now(),
            session_token,
            signed: None,
        })
    }
}

/// The value of the header `authorization`.
fn signature(credentials: &Credentials, date: &HeaderValue) -> String {
    let mut text = format!(
        "MQv2-HMAC-SHA1 Credential={}, SignedHeaders=x-mq-date-time, Signature=",
        credentials.access_key
    );
    // A key may have any length; were it refused, the server would refuse the request.
    if let Ok(mut mac) = Hmac::<Sha1>::new_from_slice(credentials.secret_key.as_bytes()) {
        mac.update(date.as_bytes());
        for byte in mac.finalize().into_bytes() {
            // Writing to a String does not fail.
            let _ = write!(text, "{byte:02X}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::CredentialsProvider;

    /// By the second case of RFC 2202.
    #[test]
    fn signatures_are_upper_case_hex_of_hmac_sha1() {
        let of = |key: &str, secret: &str, date: &'static str| {
            signature(
                &Credentials::new(key, secret),
                &HeaderValue::from_static(date),
            )
        };
        assert_eq!(
            of("ak", "Jefe", "what do ya want for nothing?"),
            "MQv2-HMAC-SHA1 Credential=ak, SignedHeaders=x-mq-date-time, \
             Signature=EFFCDF6AE5EB2FA2D27416D5F184DF9C259A7C79"
        );
    }

    struct Rotating(AtomicUsize);

    impl CredentialsProvider for Rotating {
        async fn credentials(&self) -> Result<Credentials, BoxError> {
            let turn = self.0.fetch_add(1, Ordering::Relaxed);
            Ok(Credentials::new("ak", format!("secret-{}", turn / 2)).session_token("st"))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_asks_the_provider_once_a_second_and_tells_whether_it_helped() {
        let provider = Provider::new(Rotating(AtomicUsize::new(0)));
        let signer = Signer::new(provider, Duration::from_secs(1));
        signer.prepare().await.unwrap();
        let date = HeaderValue::from_static("20250101T000000Z");
        let headers = || {
            let mut headers = HeaderMap::new();
            signer.sign(&date, &mut headers);
            headers
        };
        let before = headers();
        assert_eq!(before[SESSION_TOKEN], "st");
        assert!(before[AUTHORIZATION].is_sensitive() && before[SESSION_TOKEN].is_sensitive());

        let sent_at = Instant::now();
        assert!(!signer.refresh(sent_at).await, "the same again");
        assert!(!signer.refresh(sent_at).await, "too soon");
        assert_eq!(headers(), before);
        tokio::time::advance(Duration::from_secs(2)).await;
        assert!(signer.refresh(sent_at).await, "others");
        assert_ne!(headers()[AUTHORIZATION], before[AUTHORIZATION]);
        assert!(signer.refresh(sent_at).await, "which others got meanwhile");
    }

    #[tokio::test]
    async fn keys_that_no_header_can_carry_are_refused() {
        for odd in ["", "a b", "a,b", "a/b", "ä", "a\n"] {
            let provider = Provider::new(Credentials::new(odd, "secret"));
            let signer = Signer::new(provider, Duration::from_secs(1));
            let error = signer.prepare().await.unwrap_err();
            assert!(error.is_invalid() && !format!("{error:?}").contains("secret"));
        }
    }
}
