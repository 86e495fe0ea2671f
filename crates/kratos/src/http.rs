//! The HTTP server: an axum router under the App's lifecycle.
//!
//! Every request runs in a span named `METHOD /route`, a child of the caller's if it sent a
//! `traceparent`; handlers find [`AppInfo`](crate::AppInfo) as an `Extension` and the client's
//! address as `ConnectInfo<SocketAddr>`. A handler that panics answers 500. HTTP/1.1 and HTTP/2
//! (without [TLS](crate::tls), by prior knowledge) are served on one port.

mod config;

use axum::Router;

pub use self::config::Config;
pub use crate::net::Bound;
use crate::{
    Result, StartContext,
    net::{Hint, Limits, Protocol, listen, observed},
};

const HINT: Hint = Hint {
    key: "http.addr",
    variable: "KRATOS_HTTP__ADDR",
};

/// An HTTP server that has not started.
///
/// ```
/// use axum::{Extension, Router, routing::get};
/// use kratos::{AppInfo, http};
///
/// async fn hello(Extension(info): Extension<AppInfo>) -> String {
///     format!("hello from {}", info.name())
/// }
///
/// let routes = Router::new().route("/hello", get(hello));
/// let app = kratos::App::new().server(http::Server::new(http::Config::default(), routes));
/// ```
#[derive(Debug)]
#[must_use = "a server does nothing until an App runs it"]
pub struct Server {
    name: String,
    config: Config,
    router: Router,
}

impl Server {
    /// A server of these routes.
    pub fn new(config: Config, router: Router) -> Self {
        Self {
            name: "http".to_owned(),
            config,
            router,
        }
    }

    /// Sets the name in logs and errors, `http` by default; needed by the second of one App.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }
}

impl crate::Server for Server {
    type Bound = Bound;

    fn name(&self) -> &str {
        &self.name
    }

    async fn bind(self, cx: StartContext) -> Result<Bound> {
        let Config {
            addr,
            connections_max,
            header_read_timeout,
            #[cfg(feature = "tls")]
            tls,
        } = self.config;
        let socket = listen(addr, HINT)?;
        let router = observed(self.router, Protocol::Http, cx.info());
        let limits = Limits {
            connections_max,
            header_read_timeout,
        };
        let bound = Bound::new(socket, router, limits, Protocol::Http);
        #[cfg(feature = "tls")]
        let bound = bound.with_tls(tls, "http.tls")?;
        Ok(bound)
    }
}
