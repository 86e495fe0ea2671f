//! `grpc.health.v1.Health`, as the App's readiness says.
//!
//! Not tonic-health's own service: its watch streams never end, and each would hold the drain until
//! the deadline. Ours say `NOT_SERVING` when the App drains, and end.

use std::{collections::BTreeSet, pin::Pin};

use futures_util::{Stream, stream};
use tonic::{Request, Response, Status};
use tonic_health::pb::{
    HealthCheckRequest, HealthCheckResponse,
    health_check_response::ServingStatus,
    health_server::{Health, HealthServer},
};

use crate::{Handle, Phase};

/// The service's own name.
pub(super) const NAME: &str = "grpc.health.v1.Health";

type Answers = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

pub(super) fn service(handle: &Handle, services: Vec<&'static str>) -> HealthServer<impl Health> {
    let services = services.into_iter().chain(["", NAME]).collect();
    HealthServer::new(FromHandle {
        handle: handle.clone(),
        services,
    })
}

#[derive(Debug)]
struct FromHandle {
    handle: Handle,
    services: BTreeSet<&'static str>,
}

impl FromHandle {
    fn knows(&self, request: &Request<HealthCheckRequest>) -> bool {
        self.services.contains(request.get_ref().service.as_str())
    }
}

#[tonic::async_trait]
impl Health for FromHandle {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        if !self.knows(&request) {
            return Err(Status::not_found("no such service"));
        }
        Ok(Response::new(answer(status(self.handle.is_ready()))))
    }

    type WatchStream = Answers;

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Answers>, Status> {
        let handle = self.handle.clone();
        if self.knows(&request) {
            return Ok(Response::new(Box::pin(watch(handle))));
        }
        let unknown = stream::once(async { Ok(answer(ServingStatus::ServiceUnknown)) });
        let rest = stream::once(async move {
            handle.reached(Phase::Draining).await;
            Err(Status::unavailable("the server is stopping"))
        });
        Ok(Response::new(Box::pin(stream::StreamExt::chain(
            unknown, rest,
        ))))
    }
}

/// The readiness now and at each change, until the App drains.
fn watch(handle: Handle) -> impl Stream<Item = Result<HealthCheckResponse, Status>> + Send {
    let mut readiness = handle.readiness();
    readiness.mark_changed();
    stream::unfold(Some((handle, readiness)), |state| async {
        let (handle, mut readiness) = state?;
        let over = tokio::select! {
            biased;
            _ = handle.reached(Phase::Draining) => true,
            changed = readiness.changed() => changed.is_err(),
        };
        let ready = !over && *readiness.borrow_and_update();
        let next = (!over).then_some((handle, readiness));
        Some((Ok(answer(status(ready))), next))
    })
}

fn status(ready: bool) -> ServingStatus {
    if ready {
        ServingStatus::Serving
    } else {
        ServingStatus::NotServing
    }
}

fn answer(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse {
        status: status.into(),
    }
}
