//! What is measured.

use std::{
    fmt,
    hint::black_box,
    str::FromStr,
    task::{Context, Poll},
};

use kratos::telemetry::{self, Telemetry};
use kratos_broker::{Batch, BatchSettings, Json, Router, State, Subscription};
use opentelemetry_sdk::{
    error::OTelSdkResult,
    trace::{SpanData, SpanExporter},
};
use tower_layer::Layer;
use tower_service::Service;

use crate::{Latch, Null, Order, ROUND};

const SAMPLED: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const UNSAMPLED: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";

/// What is received ahead: what the engine takes by itself where handlers are this fast. Given, so
/// that the counts do not depend on how fast the machine is today.
const AHEAD: usize = 512;

/// A typed handler of JSON, and what is around it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Scenario {
    /// One lane.
    Sequential,
    /// 16 lanes; messages have no key.
    Lanes,
    /// 16 lanes; messages of 64 keys, each key in order.
    Keyed,
    /// One lane, a handler of up to 100 messages at once.
    Batch,
    /// One lane, one layer of tower that does nothing.
    Layer,
    /// Three such layers.
    Layers3,
    /// Five.
    Layers5,
    /// One lane, metrics are recorded, the messages' trace is not sampled.
    Metrics,
    /// One lane, traces are set up and no metrics, the messages' trace is not sampled.
    Unsampled,
    /// As before, and it is: the spans go to an exporter that drops them.
    Sampled,
}

/// A layer that does nothing.
#[derive(Clone, Copy, Debug)]
struct Pass;

#[derive(Clone, Debug)]
struct Passing<Svc>(Svc);

/// Exports to nowhere.
#[derive(Debug)]
struct Nowhere;

// === impl Scenario ===

impl Scenario {
    /// All of them, in the order of a report.
    pub const ALL: [Self; 10] = [
        Self::Sequential,
        Self::Lanes,
        Self::Keyed,
        Self::Batch,
        Self::Layer,
        Self::Layers3,
        Self::Layers5,
        Self::Metrics,
        Self::Unsampled,
        Self::Sampled,
    ];

    /// The name on the command line and in the baseline.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sequential => "sequential",
            Self::Lanes => "lanes-16",
            Self::Keyed => "keyed-16",
            Self::Batch => "batch-100",
            Self::Layer => "layer-1",
            Self::Layers3 => "layers-3",
            Self::Layers5 => "layers-5",
            Self::Metrics => "metrics",
            Self::Unsampled => "unsampled",
            Self::Sampled => "sampled",
        }
    }

    /// Where the messages come from.
    pub(crate) fn driver(self) -> Null {
        let traceparent = match self {
            Self::Metrics | Self::Unsampled => Some(UNSAMPLED),
            Self::Sampled => Some(SAMPLED),
            _ => None,
        };
        Null::new(ROUND, self == Self::Keyed, traceparent)
    }

    /// Who handles them.
    pub(crate) fn router(self, latch: &'static Latch) -> Router {
        let lanes = match self {
            Self::Lanes | Self::Keyed => 16,
            _ => 1,
        };
        let subscription = Subscription::new("orders", "bench")
            .concurrency(lanes)
            .prefetch(AHEAD);
        let router = Router::<&'static Latch>::new();
        match self {
            Self::Batch => router
                .subscribe_batch(subscription, BatchSettings::new(100), handle_batch)
                .with_state(latch),
            Self::Layer => router
                .layer(Pass)
                .subscribe_with(subscription, handle)
                .with_state(latch)
                .into_router(),
            Self::Layers3 => router
                .layer(Pass)
                .layer(Pass)
                .layer(Pass)
                .subscribe_with(subscription, handle)
                .with_state(latch)
                .into_router(),
            Self::Layers5 => router
                .layer(Pass)
                .layer(Pass)
                .layer(Pass)
                .layer(Pass)
                .layer(Pass)
                .subscribe_with(subscription, handle)
                .with_state(latch)
                .into_router(),
            _ => router
                .subscribe_with(subscription, handle)
                .with_state(latch),
        }
    }

    /// What observes, as a service sets it up.
    pub(crate) fn telemetry(self) -> kratos::Result<Option<Telemetry>> {
        if !matches!(self, Self::Metrics | Self::Unsampled | Self::Sampled) {
            return Ok(None);
        }
        let builder = Telemetry::builder(&telemetry::Config::default())?;
        let builder = builder.writer(std::io::sink).exporter(Nowhere);
        if self == Self::Metrics {
            return builder.install().map(Some);
        }
        // Without metrics, which are counted for themselves.
        let (telemetry, dispatch) = builder.build();
        tracing::dispatcher::set_global_default(dispatch)
            .map_err(|error| kratos::Error::msg("no other subscriber").with_source(error))?;
        Ok(Some(telemetry))
    }
}

async fn handle(State(latch): State<&'static Latch>, Json(order): Json<Order>) {
    black_box((order.id, order.quantity));
    latch.arrived();
}

async fn handle_batch(State(latch): State<&'static Latch>, batch: Batch<Json<Order>>) {
    for item in &batch {
        let Json(order) = &item.body;
        black_box((order.id, order.quantity));
        latch.arrived();
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Scenario {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|it| it.name() == name);
        found.ok_or_else(|| format!("no scenario {name}"))
    }
}

/// Forgets the layers: they apply to subscriptions that were added.
trait IntoRouter {
    fn into_router(self) -> Router;
}

impl<L> IntoRouter for Router<(), L> {
    fn into_router(self) -> Router {
        Router::new().merge(self)
    }
}

// === impl Pass ===

impl<Svc> Layer<Svc> for Pass {
    type Service = Passing<Svc>;

    fn layer(&self, inner: Svc) -> Passing<Svc> {
        Passing(inner)
    }
}

impl<T, Svc: Service<T>> Service<T> for Passing<Svc> {
    type Response = Svc::Response;
    type Error = Svc::Error;
    type Future = Svc::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Svc::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, message: T) -> Svc::Future {
        self.0.call(message)
    }
}

// === impl Nowhere ===

impl SpanExporter for Nowhere {
    async fn export(&self, _: Vec<SpanData>) -> OTelSdkResult {
        Ok(())
    }
}
