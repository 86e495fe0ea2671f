//! Handlers of several messages at once.

mod fill;
mod order;
mod outcomes;
mod stops;

use kratos_broker::{
    AnyError, Backoff, Batch, BatchOutcome, Delivery, Disposition, HandlerError, Message, Policy,
    State, Subscription, memory::Broker,
};

use crate::support::{Log, publish, secs, subscription, text, until};

/// The bodies of each batch.
type Batches = Log<Vec<String>>;

fn bodies(batch: &Batch<Delivery>) -> Vec<String> {
    batch.iter().map(|item| text(&item.delivery)).collect()
}

/// One batch at a time.
fn one() -> Subscription {
    subscription().concurrency(1)
}

async fn note(State(seen): State<Batches>, batch: Batch<Delivery>) {
    seen.add(bodies(&batch));
}

fn sizes(seen: &Batches) -> Vec<usize> {
    seen.all().iter().map(Vec::len).collect()
}

async fn done(broker: &Broker) {
    until("all are settled", || broker.backlog("t", "g") == 0).await;
}

/// Fails what is in the list at its first attempt.
#[derive(Clone)]
struct FailOnce {
    failing: &'static [&'static str],
    seen: Log<Vec<(String, u32)>>,
}

impl FailOnce {
    fn new(failing: &'static [&'static str]) -> Self {
        Self {
            failing,
            seen: Log::default(),
        }
    }

    async fn handle(State(this): State<Self>, batch: Batch<Delivery>) -> BatchOutcome {
        let seen = batch.iter().map(|item| &item.delivery);
        let seen = seen.map(|delivery| (text(delivery), delivery.attempt()));
        this.seen.add(seen.collect());
        let mut outcome = BatchOutcome::new();
        for (index, item) in batch.into_iter().enumerate() {
            let failing = this.failing.contains(&&*text(&item.body));
            if failing && item.delivery.attempt() == 1 {
                outcome.fail(index, AnyError::msg("on purpose"));
            }
        }
        outcome.rest_ok()
    }

    fn seen(&self) -> Vec<Vec<String>> {
        let show = |(body, attempt): (String, u32)| format!("{body}/{attempt}");
        let batches = self.seen.all().into_iter();
        batches
            .map(|batch| batch.into_iter().map(show).collect())
            .collect()
    }
}

#[derive(Debug)]
struct Refused(Disposition);

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("refused")
    }
}

impl HandlerError for Refused {
    fn disposition(&self) -> Disposition {
        self.0
    }
}

fn fifo() -> Subscription {
    let policy = Policy::ordered().backoff(Backoff::fixed(secs(2)));
    Subscription::new("t", "g")
        .fifo()
        .concurrency(1)
        .ordered_policy(policy)
}

/// Publishes `a0 b0 a1 b1 ..`: message groups, or keys, a and b.
async fn publish_two(broker: &Broker, each: usize, of: fn(Message, &str) -> Message) {
    for n in 0..each {
        for group in ["a", "b"] {
            publish(broker, of(Message::new("t", format!("{group}{n}")), group)).await;
        }
    }
}
