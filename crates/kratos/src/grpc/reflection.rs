//! `grpc.reflection`, v1 and v1alpha: clients ask which services there are, and what they take.

use std::task::{Context, Poll};

use ::http::Request;
use futures_util::StreamExt as _;
use tonic::{body::Body, server::NamedService, service::Routes};
use tonic_reflection::server::Builder;
use tower::Service;

use super::health;
use crate::{Error, Handle, Phase, Result};

/// The services' own names.
pub(super) const NAMES: [&str; 2] = [
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
];

/// Ends the client's side of a call when the App drains: a client that leaves it open, as tools with
/// windows do, would hold the stop until its deadline.
#[derive(Clone, Debug)]
struct UntilDrain<S> {
    inner: S,
    handle: Handle,
}

/// Adds reflection of `services`, health and itself, as the descriptor sets describe them.
pub(super) fn add(
    routes: Routes,
    handle: &Handle,
    services: &[&str],
    sets: &[Vec<u8>],
) -> Result<Routes> {
    let builder = || {
        let all = services.iter().chain(&[health::NAME]).chain(&NAMES);
        let own = [
            tonic_health::pb::FILE_DESCRIPTOR_SET,
            tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
            tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
        ];
        let sets = own.into_iter().chain(sets.iter().map(Vec::as_slice));
        let builder = sets.fold(Builder::configure(), |all, set| {
            all.register_encoded_file_descriptor_set(set)
        });
        all.fold(builder, |all, service| all.with_service_name(*service))
    };
    let wrong = |error| {
        Error::msg(
            "grpc reflection: what it was given is no set of descriptors (of protoc, or of \
             file_descriptor_set_path of tonic-prost-build)",
        )
        .with_source(error)
    };
    let current = builder().build_v1().map_err(wrong)?;
    let older = builder().build_v1alpha().map_err(wrong)?;
    let routes = routes.add_service(UntilDrain::new(current, handle));
    Ok(routes.add_service(UntilDrain::new(older, handle)))
}

// === impl UntilDrain ===

impl<S> UntilDrain<S> {
    fn new(inner: S, handle: &Handle) -> Self {
        Self {
            inner,
            handle: handle.clone(),
        }
    }
}

impl<S: NamedService> NamedService for UntilDrain<S> {
    const NAME: &'static str = S::NAME;
}

impl<S: Service<Request<Body>>> Service<Request<Body>> for UntilDrain<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<std::result::Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> S::Future {
        let handle = self.handle.clone();
        let drains = Box::pin(async move { handle.reached(Phase::Draining).await });
        self.inner.call(request.map(|body| {
            let frames = axum::body::Body::new(body).into_data_stream();
            Body::new(axum::body::Body::from_stream(frames.take_until(drains)))
        }))
    }
}
