//! Batches: D20, T3, and what holds for single messages.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use opentelemetry_sdk::trace::SpanData;
use tokio::time::sleep;

use super::{
    Harness, Started, eventually,
    order::{self, cannot_order, of_group},
    place::{Place, dead_letters, numbered, prime},
    trace::{attribute, named, spans},
    witness::{Seen, publish_all, stop},
};
use crate::{AnyError, Batch, BatchOutcome, BatchSettings, Delivery, Json, Message, Server, State};

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
    // What comes again without need comes within a lease.
    sleep(h.invisible() + h.bounds().redelivery_late).await;
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
    let counts = batches.iter().map(|span| {
        let count = attribute(span, "messaging.batch.message_count");
        assert_eq!(count, Some(span.links.len().to_string()), "{span:?}");
        assert_eq!(attribute(span, "messaging.message.id"), None, "{span:?}");
        span.links.len()
    });
    assert_eq!(counts.sum::<usize>(), MESSAGES);
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

/// R3 for batches: a body that cannot be decoded is a dead letter by itself, and the others of its
/// batch are handled.
///
/// # Panics
///
/// It is not, or they are not.
pub async fn r3_a_body_of_a_batch_that_cannot_be_decoded_is_a_dead_letter_by_itself<H: Harness>(
    h: &H,
) {
    type Numbers = Arc<Mutex<Vec<u32>>>;
    async fn take(State(numbers): State<Numbers>, batch: Batch<Json<u32>>) {
        let batch = batch.into_iter().map(|item| item.body.0);
        numbers.lock().unwrap().extend(batch);
    }
    let place = Place::new(h, "r3-batch").await;
    prime(h, &place.topic, &place.group).await;
    let numbers = Numbers::default();
    let settings = BatchSettings::new(10).linger(Duration::from_millis(300));
    let server = Server::new(h.driver().await)
        .subscribe_batch(place.subscription(h), settings, take)
        .with_state(numbers.clone());
    let counters = server.counters();
    let server = Started::start(server).await;
    let bodies = ["1", "{\"no\":\"number\"}", "2"];
    let messages = bodies.map(|body| Message::new(&place.topic, body));
    publish_all(h, [messages.into()]).await;
    let settled = || counters.stats().confirmed >= 3;
    eventually("all are settled", h.bounds().deliver, settled).await;
    stop(server).await;
    numbers.lock().unwrap().sort_unstable();
    assert_eq!(*numbers.lock().unwrap(), [1, 2]);
    let dead = dead_letters(h, &place.group).await;
    let dead: Vec<_> = dead.iter().map(Delivery::body).collect();
    assert_eq!(dead, [bodies[1]]);
}

/// Batches keep the order of message groups while messages fail: of a group nothing is settled
/// behind a message that is tried again, whatever the handler says of it.
///
/// # Panics
///
/// A message is settled before one in front of it.
pub async fn batches_keep_the_order_of_message_groups_while_messages_fail<H: Harness>(h: &H) {
    const GROUPS: [&str; 4] = ["a", "b", "c", "d"];
    const EACH: usize = 12;
    type Settled = Arc<Mutex<BTreeMap<String, Vec<usize>>>>;
    async fn fail_some(State(settled): State<Settled>, batch: Batch<Delivery>) -> BatchOutcome {
        let mut failed = BTreeSet::new();
        let results = batch.iter().map(|item| {
            let group = item.delivery.message_group().unwrap_or_default();
            let number: usize = std::str::from_utf8(item.body.body())?.parse()?;
            if number.is_multiple_of(3) && item.delivery.attempt() == 1 {
                failed.insert(group.to_owned());
                return Err(AnyError::msg("fails at first"));
            }
            if !failed.contains(group) {
                let mut settled = settled.lock().unwrap();
                settled.entry(group.to_owned()).or_default().push(number);
            }
            Ok(())
        });
        results.collect()
    }
    if cannot_order(h).await {
        return;
    }
    let (place, subscription) = order::place(h, "batch-order").await;
    publish_all(h, GROUPS.map(|group| of_group(&place.topic, group, EACH))).await;
    let settled = Settled::default();
    let settings = BatchSettings::new(16).linger(Duration::from_millis(50));
    let server = Server::new(h.driver().await)
        .subscribe_batch(subscription.concurrency(2), settings, fail_some)
        .with_state(settled.clone());
    let counters = server.counters();
    let server = Started::start(server).await;
    let all = || counters.stats().confirmed >= (GROUPS.len() * EACH) as u64;
    eventually("all are settled", h.bounds().deliver, all).await;
    stop(server).await;
    let wanted: Vec<usize> = (0..EACH).collect();
    for (group, numbers) in &*settled.lock().unwrap() {
        assert_eq!(*numbers, wanted, "group {group}");
    }
}
