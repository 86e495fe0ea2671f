//! D20 and T3: batches.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    time::Duration,
};

use opentelemetry_sdk::trace::SpanData;

use super::{
    Harness, Started, eventually,
    place::{Place, numbered, prime},
    trace::{named, spans},
    witness::{Seen, publish_all, stop},
};
use crate::{AnyError, Batch, BatchOutcome, BatchSettings, Delivery, Server};

/// D20: of a batch that failed in part only the failed messages come again.
///
/// # Panics
///
/// One that succeeded comes again, or one that failed does not.
pub async fn d20_a_batch_that_failed_in_part_redelivers_only_the_failed<H: Harness>(h: &H) {
    let place = Place::new(h, "d20").await;
    prime(h, &place.topic, &place.group).await;
    let seen = Seen::default();
    let failed = Arc::new(Mutex::new(BTreeSet::new()));
    let handler = {
        let (seen, failed) = (seen.clone(), failed.clone());
        move |batch: Batch<Delivery>| {
            let mut outcome = BatchOutcome::<AnyError>::new();
            for (index, item) in batch.iter().enumerate() {
                seen.add(item.delivery.clone());
                let number: usize = String::from_utf8_lossy(item.delivery.body())
                    .parse()
                    .unwrap();
                if number.is_multiple_of(3) && item.delivery.attempt() == 1 {
                    failed.lock().unwrap().insert(item.delivery.id().clone());
                    outcome.fail(index, AnyError::msg("fails at first"));
                } else {
                    outcome.ok(index);
                }
            }
            std::future::ready(outcome)
        }
    };
    let server = Server::<_, ()>::new(h.driver().await).subscribe_batch(
        place.subscription(h).concurrency(1),
        BatchSettings::new(16),
        handler,
    );
    let counters = server.counters();
    let server = Started::start(server).await;
    let ids = publish_all(h, [numbered(&place.topic, 48).collect()]).await;
    let within = h.bounds().deliver + h.bounds().redelivery_late;
    eventually("all are handled", within, || {
        counters.stats().confirmed >= 48 + 16
    })
    .await;
    stop(server).await;
    let failed = failed.lock().unwrap();
    assert_eq!((ids.len(), failed.len()), (48, 16));
    for (id, times) in seen.ids() {
        let wanted = 1 + usize::from(failed.contains(&id));
        assert_eq!(
            times,
            wanted,
            "message {id}, which failed {} times",
            wanted - 1
        );
    }
}

/// T3: the span of a batch is a root with a link to the sender of each of its messages.
///
/// # Panics
///
/// It has a parent, or links are missing.
pub async fn t3_a_batch_is_linked_to_every_sender<H: Harness>(h: &H) {
    const MESSAGES: usize = 8;
    let place = Place::new(h, "t3").await;
    let exporter = spans(&place.topic);
    prime(h, &place.topic, &place.group).await;
    let seen = Seen::default();
    let handler = {
        let seen = seen.clone();
        move |batch: Batch<Delivery>| {
            batch
                .iter()
                .for_each(|item| seen.add(item.delivery.clone()));
            std::future::ready(())
        }
    };
    let linger = BatchSettings::new(MESSAGES).linger(Duration::from_millis(500));
    let server = Server::<_, ()>::new(h.driver().await).subscribe_batch(
        place.subscription(h).concurrency(1),
        linger,
        handler,
    );
    let server = Started::start(server).await;
    publish_all(h, [numbered(&place.topic, MESSAGES).collect()]).await;
    let all = || seen.count() >= MESSAGES;
    eventually("all are handled", h.bounds().deliver, all).await;
    stop(server).await;
    let senders = named(&exporter, &format!("send {}", place.topic));
    let batches = named(&exporter, &format!("process {}", place.topic));
    let root = |span: &SpanData| span.parent_span_id == opentelemetry::SpanId::INVALID;
    assert!(batches.iter().all(root), "without a parent: {batches:?}");
    let links = batches.iter().flat_map(|span| span.links.iter());
    let links: BTreeSet<_> = links
        .map(|link| link.span_context.span_id().to_string())
        .collect();
    let senders: BTreeSet<_> = senders
        .iter()
        .map(|span| span.span_context.span_id().to_string())
        .collect();
    assert_eq!((links.len(), links), (MESSAGES, senders));
}
