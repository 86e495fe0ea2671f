//! The object-safe twins of the public traits, so that one App holds servers of any type.

use std::{future::Future, sync::Arc};

use futures_util::future::BoxFuture;
use tokio::{sync::watch, time::Instant};

use super::hook::Outcome;
use crate::{
    BoundServer, Description, Endpoint, Health, Instance, Registrar, Resource, Result, Server,
    Shutdown, StartContext,
};

pub(super) type BoxServer = Box<dyn ErasedServer>;
pub(super) type BoxResource = Box<dyn ErasedResource>;
pub(super) type BoxRegistrar = Arc<dyn ErasedRegistrar>;

pub(super) trait ErasedServer: Send {
    fn name(&self) -> &str;
    fn describe(&self) -> Description;
    fn bind(self: Box<Self>, cx: StartContext) -> BoxFuture<'static, Result<Bound>>;
}

/// A bound server whose type is forgotten.
pub(super) struct Bound {
    pub(super) endpoints: Vec<Endpoint>,
    pub(super) health: watch::Receiver<Health>,
    pub(super) serve: Box<dyn FnOnce(Shutdown) -> BoxFuture<'static, Result<()>> + Send>,
}

pub(super) trait ErasedResource: Send {
    fn name(&self) -> &str;
    fn describe(&self) -> Description;
    fn open(&mut self, cx: StartContext) -> BoxFuture<'_, Result<()>>;
    fn close(self: Box<Self>, by: Instant) -> BoxFuture<'static, Result<()>>;
}

pub(super) trait ErasedRegistrar: Send + Sync {
    fn name(&self) -> String;
    fn register(self: Arc<Self>, instance: Instance) -> BoxFuture<'static, Result<()>>;
    fn deregister(self: Arc<Self>, instance: Instance) -> BoxFuture<'static, Result<()>>;
}

/// What [`App::on_close`](crate::App::on_close) makes: a resource with nothing to open.
pub(super) struct OnClose {
    name: String,
    close: Box<dyn FnOnce() -> BoxFuture<'static, Result<()>> + Send>,
}

pub(super) fn server(server: impl Server) -> BoxServer {
    Box::new(server)
}

pub(super) fn resource(resource: impl Resource) -> BoxResource {
    Box::new(resource)
}

pub(super) fn registrar(registrar: impl Registrar) -> BoxRegistrar {
    Arc::new(registrar)
}

impl<S: Server> ErasedServer for S {
    fn name(&self) -> &str {
        Server::name(self)
    }

    fn describe(&self) -> Description {
        Server::describe(self)
    }

    fn bind(self: Box<Self>, cx: StartContext) -> BoxFuture<'static, Result<Bound>> {
        Box::pin(async move {
            let bound = Server::bind(*self, cx).await?;
            Ok(Bound {
                endpoints: bound.endpoints(),
                health: bound.health(),
                serve: Box::new(|shutdown| Box::pin(bound.serve(shutdown))),
            })
        })
    }
}

impl<R: Resource> ErasedResource for R {
    fn name(&self) -> &str {
        Resource::name(self)
    }

    fn describe(&self) -> Description {
        Resource::describe(self)
    }

    fn open(&mut self, cx: StartContext) -> BoxFuture<'_, Result<()>> {
        Box::pin(Resource::open(self, cx))
    }

    fn close(self: Box<Self>, by: Instant) -> BoxFuture<'static, Result<()>> {
        Box::pin(async move { Resource::close(*self, by).await })
    }
}

impl<R: Registrar> ErasedRegistrar for R {
    fn name(&self) -> String {
        Registrar::name(self).to_owned()
    }

    fn register(self: Arc<Self>, instance: Instance) -> BoxFuture<'static, Result<()>> {
        Box::pin(async move { Registrar::register(&*self, &instance).await })
    }

    fn deregister(self: Arc<Self>, instance: Instance) -> BoxFuture<'static, Result<()>> {
        Box::pin(async move { Registrar::deregister(&*self, &instance).await })
    }
}

// === impl OnClose ===

impl OnClose {
    pub(super) fn new<F, Fut>(name: String, close: F) -> Self
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future + Send + 'static,
        Fut::Output: Outcome,
    {
        let close = || -> BoxFuture<'static, Result<()>> {
            Box::pin(async move { close().await.into_result() })
        };
        Self {
            name,
            close: Box::new(close),
        }
    }
}

impl Resource for OnClose {
    fn name(&self) -> &str {
        &self.name
    }

    async fn open(&mut self, _cx: StartContext) -> Result<()> {
        Ok(())
    }

    async fn close(self, _by: Instant) -> Result<()> {
        (self.close)().await
    }
}
