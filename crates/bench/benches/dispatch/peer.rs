//! RustStream by the same workload: its memory broker, messages published before the time is
//! taken, the same body and the same latch.

use bench::{BODY, KEYS, Latch, Order, ROUND, drain};
use ruststream::memory::prelude::*;
use ruststream::memory::{MemoryBroker, PARTITION_KEY_HEADER};
use ruststream::runtime::RunningApp;
use ruststream::{HeaderMap, OutgoingMessage};
use std::convert::Infallible;
use std::hint::black_box;
use tokio::runtime::Runtime;
use tokio::time::{Duration, Instant};

use crate::AnyError;

/// A service of the peer that runs.
pub(crate) struct Peer {
    runtime: Runtime,
    latch: &'static Latch,
    broker: MemoryBroker,
    keyed: bool,
    _app: RunningApp,
}

#[subscriber("orders")]
async fn sequential(order: &Order, ctx: &mut Context<'_, (), &'static Latch>) -> HandlerOutcome {
    black_box((order.id, order.quantity));
    ctx.state().arrived();
    HandlerOutcome::ack()
}

#[subscriber("orders", workers(16))]
async fn lanes(order: &Order, ctx: &mut Context<'_, (), &'static Latch>) -> HandlerOutcome {
    black_box((order.id, order.quantity));
    ctx.state().arrived();
    HandlerOutcome::ack()
}

#[subscriber("orders", workers(16, by_key))]
async fn keyed(order: &Order, ctx: &mut Context<'_, (), &'static Latch>) -> HandlerOutcome {
    black_box((order.id, order.quantity));
    ctx.state().arrived();
    HandlerOutcome::ack()
}

impl Peer {
    pub(crate) const NAMES: [&'static str; 3] = [
        "ruststream-sequential",
        "ruststream-lanes-16",
        "ruststream-keyed-16",
    ];

    /// The peer's service of this name, started; `None` if the name is none of the peer's.
    pub(crate) fn named(name: &str) -> Result<Option<Self>, AnyError> {
        let Some(which) = Self::NAMES.iter().position(|it| *it == name) else {
            return Ok(None);
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let (latch, broker) = (Latch::leaked(), MemoryBroker::new());
        let app = RustStream::new(AppInfo::new("bench", "0.0.0"))
            .on_startup(async move |()| Ok::<_, Infallible>(latch))
            .with_broker(broker.clone(), |b| match which {
                0 => {
                    b.include(sequential);
                }
                1 => {
                    b.include(lanes);
                }
                _ => {
                    b.include(keyed);
                }
            });
        let running = runtime.block_on(app.start())?;
        Ok(Some(Self {
            runtime,
            latch,
            broker,
            keyed: which == 2,
            _app: running,
        }))
    }

    pub(crate) fn fill_and_drain(&self) -> Result<Duration, AnyError> {
        self.latch.expect(ROUND);
        let publisher = self.broker.publisher();
        self.runtime.block_on(async {
            for n in 0..ROUND {
                let mut headers = HeaderMap::new();
                if self.keyed {
                    headers.insert(PARTITION_KEY_HEADER, format!("customer-{:02}", n % KEYS));
                }
                let message = OutgoingMessage::new("orders", BODY).with_headers(headers);
                publisher.publish(message, None).await?;
            }
            Ok::<_, AnyError>(())
        })?;
        let start = Instant::now();
        drain(&self.runtime, self.latch);
        Ok(start.elapsed())
    }
}
