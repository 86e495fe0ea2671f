//! Who signs the requests: access keys, and where they come from.

mod signer;

use std::{fmt, future::Future, pin::Pin, sync::Arc};

pub(crate) use self::signer::Signer;
use crate::BoxError;

/// An access key and its secret; in the words of the server's ACL, a user and a password.
///
/// They are a [`CredentialsProvider`] that always gives the same. Debug does not show the secrets.
///
/// ```
/// use rocketmq_grpc::{Client, Config, Credentials};
///
/// let credentials = Credentials::new("service-a", "its secret");
/// assert!(!format!("{credentials:?}").contains("its secret"));
/// let client = Client::new(Config::new("127.0.0.1:8081").credentials(credentials))?;
/// # Ok::<(), rocketmq_grpc::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
#[must_use]
pub struct Credentials {
    access_key: String,
    secret_key: String,
    session_token: Option<String>,
}

/// Gives credentials that change: rotated secrets, tokens of a security service.
///
/// It is asked before the first request, and again when a server has answered UNAUTHORIZED, at most
/// once a second and by one caller at a time; if it then gives others than before, the request is
/// sent once more. An answer has to come within the request timeout.
///
/// ```
/// use rocketmq_grpc::{BoxError, Client, Config, Credentials, CredentialsProvider};
///
/// struct SecretFile(std::path::PathBuf);
///
/// impl CredentialsProvider for SecretFile {
///     async fn credentials(&self) -> Result<Credentials, BoxError> {
///         let secret = std::fs::read_to_string(&self.0)?; // small and local
///         Ok(Credentials::new("service-a", secret.trim()))
///     }
/// }
///
/// let provider = SecretFile("/run/secrets/rocketmq".into());
/// let client = Client::new(Config::new("127.0.0.1:8081").credentials(provider))?;
/// # Ok::<(), rocketmq_grpc::Error>(())
/// ```
pub trait CredentialsProvider: Send + Sync + 'static {
    /// The credentials to sign with from now on.
    ///
    /// # Errors
    ///
    /// Those in use stay in use; if there are none yet, requests fail with an error that passes
    /// ([`is_retryable`](crate::Error::is_retryable)) and has this one as its source.
    fn credentials(&self) -> impl Future<Output = Result<Credentials, BoxError>> + Send;
}

/// A provider whose type is forgotten.
#[derive(Clone)]
pub(crate) struct Provider(Arc<dyn ErasedProvider>);

type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

trait ErasedProvider: Send + Sync {
    fn credentials(&self) -> BoxFuture<'_, Result<Credentials, BoxError>>;
}

// === impl Credentials ===

impl Credentials {
    /// Of a user of the server.
    pub fn new(access_key: impl Into<String>, secret_key: impl Into<String>) -> Self {
        Self {
            access_key: access_key.into(),
            secret_key: secret_key.into(),
            session_token: None,
        }
    }

    /// Token of a security service, which goes with temporary keys.
    pub fn session_token(mut self, token: impl Into<String>) -> Self {
        self.session_token = Some(token.into());
        self
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("access_key", &self.access_key)
            .finish_non_exhaustive()
    }
}

impl CredentialsProvider for Credentials {
    async fn credentials(&self) -> Result<Self, BoxError> {
        Ok(self.clone())
    }
}

// === impl Provider ===

impl Provider {
    pub(crate) fn new(provider: impl CredentialsProvider) -> Self {
        Self(Arc::new(provider))
    }
}

impl<P: CredentialsProvider> ErasedProvider for P {
    fn credentials(&self) -> BoxFuture<'_, Result<Credentials, BoxError>> {
        Box::pin(CredentialsProvider::credentials(self))
    }
}

impl fmt::Debug for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CredentialsProvider")
    }
}
