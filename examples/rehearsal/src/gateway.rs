//! A payment gateway that is as one says.

use std::{fmt, io, sync::Arc};

use axum::{
    Router,
    extract::{Path, State},
    http::StatusCode,
    routing::put,
};
use serde::Deserialize;
use tokio::sync::watch;

/// How the gateway is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Mood {
    /// It answers.
    Up,
    /// It refuses connections.
    Down,
    /// It takes them and never answers.
    Silent,
}

/// Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Gateway(Arc<watch::Sender<Mood>>);

/// The gateway did not do it.
#[derive(Debug)]
pub(crate) struct GatewayError(io::Error);

// === impl Gateway ===

impl Gateway {
    pub(crate) fn new() -> Self {
        Self(Arc::new(watch::Sender::new(Mood::Up)))
    }

    /// Moves money, or says why not.
    pub(crate) async fn pay(&self) -> Result<(), GatewayError> {
        let mut mood = self.0.subscribe();
        // The sender is in `self`: there is always an answer, if late.
        let mood = mood.wait_for(|mood| *mood != Mood::Silent).await;
        match mood.as_deref() {
            Ok(Mood::Up) => Ok(()),
            _ => Err(GatewayError(io::ErrorKind::ConnectionRefused.into())),
        }
    }
}

/// `PUT /gateway/{up,down,silent}`.
pub(crate) fn routes(gateway: Gateway) -> Router {
    Router::new()
        .route("/gateway/{mood}", put(set))
        .with_state(gateway)
}

async fn set(State(gateway): State<Gateway>, Path(mood): Path<Mood>) -> StatusCode {
    gateway.0.send_replace(mood);
    StatusCode::NO_CONTENT
}

// === impl GatewayError ===

impl fmt::Display for GatewayError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the payment gateway cannot be reached")
    }
}

impl std::error::Error for GatewayError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.0)
    }
}
