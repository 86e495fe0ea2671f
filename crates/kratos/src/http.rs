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
    Description, Document, Entry, Result, StartContext,
    net::{Hint, Limits, Protocol, WhenFull, listen, observed},
};

const HINT: Hint = Hint {
    key: "http.addr",
    variable: "KRATOS_HTTP__ADDR",
};

/// The operations that a path of an OpenAPI document may have, beside what else is said of it.
const METHODS: [&str; 8] = [
    "GET", "PUT", "POST", "DELETE", "OPTIONS", "HEAD", "PATCH", "TRACE",
];

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
    openapi: Vec<serde_json::Value>,
}

impl Server {
    /// A server of these routes.
    pub fn new(config: Config, router: Router) -> Self {
        Self {
            name: "http".to_owned(),
            config,
            router,
            openapi: Vec::new(),
        }
    }

    /// Sets the name in logs and errors, `http` by default; needed by the second of one App.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Adds the OpenAPI document of these routes, or the part of it that `paths` and `components`
    /// are: the admin server and the command line show it, and the start log its routes. Routers that
    /// were merged each have their part. utoipa's `OpenApi`, say, is one by `serde_json::to_value`.
    pub fn openapi(mut self, document: serde_json::Value) -> Self {
        self.openapi.push(document);
        self
    }
}

/// `POST /agent/v1/report` of each operation in an OpenAPI document.
fn routes(openapi: &serde_json::Value) -> Vec<String> {
    let paths = openapi.get("paths").and_then(|paths| paths.as_object());
    let methods = paths.into_iter().flatten().flat_map(|(path, item)| {
        let methods = item.as_object().into_iter().flatten();
        methods.map(move |(method, _)| (method.to_ascii_uppercase(), path))
    });
    methods
        .filter(|(method, _)| METHODS.contains(&method.as_str()))
        .map(|(method, path)| format!("{method} {path}"))
        .collect()
}

impl crate::Server for Server {
    type Bound = Bound;

    fn name(&self) -> &str {
        &self.name
    }

    fn describe(&self) -> Description {
        let described = Description::new("http");
        self.openapi.iter().fold(described, |described, openapi| {
            let routes = routes(openapi).into_iter();
            routes
                .fold(described, |all, route| {
                    all.entry(Entry::new("route", route))
                })
                .document(Document::new("openapi", openapi.clone()))
        })
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
            when_full: WhenFull::Wait,
            header_read_timeout,
        };
        let bound = Bound::new(socket, router, limits, Protocol::Http);
        #[cfg(feature = "tls")]
        let bound = bound.with_tls(tls, "http.tls")?;
        Ok(bound)
    }
}
