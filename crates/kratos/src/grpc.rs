//! The gRPC server: tonic services under the App's lifecycle.
//!
//! Every call runs in a span named `pkg.Service/Method`, a child of the caller's if it sent a
//! `traceparent`, and no longer than the caller waits (`grpc-timeout`). Handlers find
//! [`AppInfo`](crate::AppInfo) in the request's extensions. A handler that panics answers
//! `INTERNAL`.
//!
//! `grpc.health.v1.Health` is always there: `SERVING` while the App is
//! [ready](crate::Handle::is_ready), for the server (the empty name) and for every service in it.

mod client;
mod config;
mod health;
#[cfg(feature = "reflection")]
mod reflection;

use std::{collections::BTreeSet, convert::Infallible, time::Duration};

use ::http::{Request, Response};
use tonic::{body::Body, server::NamedService, service::Routes};
use tower::Service;

pub use self::{
    client::{TraceLayer, Traced},
    config::Config,
};
pub use crate::net::Bound;
use crate::{
    Description, Entry, Error, Result, StartContext,
    net::{Hint, Limits, Protocol, WhenFull, listen, observed},
};

const HINT: Hint = Hint {
    key: "grpc.addr",
    variable: "KRATOS_GRPC__ADDR",
};

/// gRPC is HTTP/2, which has no such wait; the shared accept loop knows HTTP/1 too.
const HEADER_READ_TIMEOUT: Duration = Duration::from_secs(30);

/// A gRPC server that has not started.
///
/// ```
/// use kratos::{App, grpc};
///
/// let server = grpc::Server::new(grpc::Config::default());
/// // .add_service(GreeterServer::new(greeter)), of the code that tonic generated
/// let app = App::new().server(server);
/// ```
#[derive(Debug)]
#[must_use = "a server does nothing until an App runs it"]
pub struct Server {
    name: String,
    config: Config,
    routes: Routes,
    services: Vec<&'static str>,
    /// Sets of descriptors, if it is asked to reflect.
    #[cfg(feature = "reflection")]
    reflection: Option<Vec<Vec<u8>>>,
}

impl Server {
    /// A server with no service but health.
    pub fn new(config: Config) -> Self {
        Self {
            name: "grpc".to_owned(),
            config,
            routes: Routes::default(),
            services: Vec::new(),
            #[cfg(feature = "reflection")]
            reflection: None,
        }
    }

    /// Sets the name in logs and errors, `grpc` by default; needed by the second of one App.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Answers `grpc.reflection.v1` and `v1alpha`, so that clients such as `grpcurl` find the services
    /// and their messages by themselves: those of this server, health, and reflection itself. Off
    /// unless called.
    ///
    /// `sets` are encoded `FileDescriptorSet`s, as `protoc --include_imports --descriptor_set_out` or
    /// tonic-prost-build's `file_descriptor_set_path` writes them; one that is not is an error of the
    /// start. A stream that a client leaves open ends when the App drains.
    ///
    /// ```
    /// use kratos::grpc;
    ///
    /// const DESCRIPTORS: &[u8] = &[]; // include_bytes!("generated/greeter.v1.bin")
    ///
    /// let server = grpc::Server::new(grpc::Config::default()).reflection([DESCRIPTORS]);
    /// ```
    #[cfg(feature = "reflection")]
    pub fn reflection<T: Into<Vec<u8>>>(mut self, sets: impl IntoIterator<Item = T>) -> Self {
        let all = self.reflection.get_or_insert_default();
        all.extend(sets.into_iter().map(Into::into));
        self
    }

    /// Adds a service that tonic generated.
    pub fn add_service<S, B>(mut self, service: S) -> Self
    where
        S: Service<Request<Body>, Response = Response<B>, Error = Infallible>,
        S: NamedService + Clone + Send + Sync + 'static,
        S::Future: Send + 'static,
        Response<B>: axum::response::IntoResponse,
    {
        // The router panics on a second service of one name; `bind` answers an error.
        if S::NAME != health::NAME && !self.services.contains(&S::NAME) {
            self.routes = self.routes.add_service(service);
        }
        self.services.push(S::NAME);
        self
    }
}

impl crate::Server for Server {
    type Bound = Bound;

    fn name(&self) -> &str {
        &self.name
    }

    fn describe(&self) -> Description {
        let described = self
            .services
            .iter()
            .fold(Description::new("grpc"), |all, service| {
                all.entry(Entry::new("service", *service))
            });
        #[cfg(feature = "reflection")]
        if self.reflection.is_some() {
            return described.entry(Entry::new("option", "reflection"));
        }
        described
    }

    async fn bind(self, cx: StartContext) -> Result<Bound> {
        let Config {
            addr,
            connections_max,
            #[cfg(feature = "tls")]
            tls,
        } = self.config;
        unique(&self.services)?;
        #[cfg(feature = "reflection")]
        if self.reflection.is_some() {
            let own = |name: &&&str| reflection::NAMES.contains(*name);
            if let Some(name) = self.services.iter().find(own) {
                return Err(Error::msg(format!(
                    "service {name} is there by reflection(..): do not add it"
                )));
            }
        }
        let socket = listen(addr, HINT)?;
        let routes = self.routes;
        #[cfg(feature = "reflection")]
        let routes = match self.reflection {
            Some(sets) => reflection::add(routes, cx.handle(), &self.services, &sets)?,
            None => routes,
        };
        let routes = routes.add_service(health::service(cx.handle(), self.services));
        let router = observed(routes.into_axum_router(), Protocol::Grpc, cx.info());
        let limits = Limits {
            connections_max,
            when_full: WhenFull::Wait,
            header_read_timeout: HEADER_READ_TIMEOUT,
        };
        let bound = Bound::new(socket, router, limits, Protocol::Grpc);
        #[cfg(feature = "tls")]
        let bound = bound.with_tls(tls, "grpc.tls")?;
        Ok(bound)
    }
}

fn unique(services: &[&str]) -> Result<()> {
    if services.contains(&health::NAME) {
        let name = health::NAME;
        return Err(Error::msg(format!(
            "service {name} is always there: do not add it"
        )));
    }
    let mut seen = BTreeSet::new();
    match services.iter().find(|service| !seen.insert(**service)) {
        Some(twice) => Err(Error::msg(format!("service {twice} was added twice"))),
        None => Ok(()),
    }
}
