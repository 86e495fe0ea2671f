//! O: order, where the driver says that it keeps message groups in order.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use futures_util::future::join_all;
use tokio::{sync::Semaphore, time::sleep};

use super::{
    Harness, Started, eventually,
    place::{Place, can, not_tried, prime, prime_fifo},
    start_context,
    witness::{Seen, publish_all, see, stop},
};
use crate::{
    AnyError, Backoff, Delivery, Message, Policy, Server, State, Subscription, Topic,
    driver::Capabilities,
};

/// Numbers as they were done, by message group.
#[derive(Clone, Default)]
struct Done {
    groups: Arc<Mutex<BTreeMap<String, Vec<usize>>>>,
}

impl Done {
    fn add(&self, delivery: &Delivery) -> Result<(), AnyError> {
        let group = delivery.message_group().unwrap_or_default().to_owned();
        let number = number(delivery)?;
        self.groups
            .lock()
            .unwrap()
            .entry(group)
            .or_default()
            .push(number);
        Ok(())
    }

    /// How many were done for the first time.
    fn first_times(&self) -> usize {
        let groups = self.groups.lock().unwrap();
        groups
            .values()
            .map(|numbers| numbers.iter().collect::<BTreeSet<_>>().len())
            .sum()
    }

    fn total(&self) -> usize {
        self.groups.lock().unwrap().values().map(Vec::len).sum()
    }

    /// Every message of every group was done for the first time after the one before it.
    fn assert_in_order(&self, each: usize) {
        for (group, numbers) in &*self.groups.lock().unwrap() {
            let mut seen = BTreeSet::new();
            let mut first = numbers.clone();
            first.retain(|number| seen.insert(*number));
            let wanted: Vec<usize> = (0..each).collect();
            assert_eq!(first, wanted, "group {group} as it was done: {numbers:?}");
        }
    }
}

fn number(delivery: &Delivery) -> Result<usize, AnyError> {
    Ok(std::str::from_utf8(delivery.body())?.parse()?)
}

/// `each` numbered messages of one group.
pub(super) fn of_group(topic: &Topic, group: &str, each: usize) -> Vec<Message> {
    let message = |n: usize| Message::new(topic, n.to_string()).group(group);
    (0..each).map(message).collect()
}

fn groups(topic: &Topic, count: usize, each: usize) -> Vec<Vec<Message>> {
    (0..count)
        .map(|n| of_group(topic, &format!("g{n}"), each))
        .collect()
}

pub(super) async fn cannot_order<H: Harness>(h: &H) -> bool {
    let cannot = !can(h, Capabilities::can_order).await;
    if cannot {
        not_tried("the driver keeps no order");
    }
    cannot
}

/// An ordered place that the group has received from, and its subscription.
pub(super) async fn place<H: Harness>(h: &H, hint: &str) -> (Place, Subscription) {
    let place = Place::ordered(h, hint).await;
    prime_fifo(h, &place.topic, &place.group).await;
    let short = Policy::ordered().backoff(Backoff::fixed(Duration::from_millis(5)));
    let subscription = place.subscription(h).fifo().ordered_policy(short);
    (place, subscription)
}

/// D5: in an ordered subscription the second message of a group waits for the first.
///
/// # Panics
///
/// It does not.
pub async fn d5_the_second_message_of_a_group_waits_for_the_first<H: Harness>(h: &H) {
    if cannot_order(h).await {
        return;
    }
    let (place, subscription) = place(h, "d5").await;
    let (running, overlap) = (Arc::new(AtomicBool::new(false)), Arc::default());
    let done = Seen::default();
    let handler = {
        let (running, overlap, done) = (running, Arc::<AtomicBool>::clone(&overlap), done.clone());
        move |delivery: Delivery| {
            let (running, overlap, done) = (running.clone(), overlap.clone(), done.clone());
            async move {
                overlap.fetch_or(running.swap(true, Relaxed), Relaxed);
                sleep(Duration::from_millis(30)).await;
                running.store(false, Relaxed);
                done.add(delivery);
            }
        }
    };
    let server = Server::<_, ()>::new(h.driver().await).subscribe_with(subscription, handler);
    let server = Started::start(server).await;
    publish_all(h, [of_group(&place.topic, "one", 10)]).await;
    let all = || done.all().len() >= 10;
    eventually("all are done", h.bounds().deliver, all).await;
    server.stop(h.invisible()).await.expect("a clean stop");
    assert!(!overlap.load(Relaxed), "two of one group ran at once");
    let bodies: Vec<_> = done.all().iter().map(|d| d.body().clone()).collect();
    let wanted: Vec<_> = (0..10).map(|n: usize| n.to_string()).collect();
    assert_eq!(bodies, wanted);
}

/// O1: 64 message groups over 16 lanes, each in order.
///
/// # Panics
///
/// One is not.
pub async fn o1_message_groups_stay_in_order_over_many_lanes<H: Harness>(h: &H) {
    in_order(h, "o1", 64, h.bounds().per_group, 0).await;
}

/// O2: the same while every tenth message fails at first.
///
/// # Panics
///
/// A group is not in order, or a message is a dead letter.
pub async fn o2_message_groups_stay_in_order_while_messages_fail<H: Harness>(h: &H) {
    // Every batch waits for a retry: a third of the messages takes as long.
    in_order(h, "o2", 64, h.bounds().per_group.div_ceil(3), 10).await;
}

async fn in_order<H: Harness>(h: &H, hint: &str, count: usize, each: usize, failing: usize) {
    if cannot_order(h).await {
        return;
    }
    let (place, subscription) = place(h, hint).await;
    let done = Done::default();
    let handler = {
        let done = done.clone();
        move |delivery: Delivery| {
            let done = done.clone();
            async move {
                let number = number(&delivery)?;
                if failing > 0 && number % failing == 3 && delivery.attempt() == 1 {
                    return Err(AnyError::msg("fails at first"));
                }
                done.add(&delivery)
            }
        }
    };
    let server = Server::<_, ()>::new(h.driver().await).subscribe_with(subscription, handler);
    let counters = server.counters();
    let server = Started::start(server).await;
    publish_all(h, groups(&place.topic, count, each)).await;
    let all = || done.first_times() >= count * each;
    eventually("all are done", 3 * h.bounds().deliver, all).await;
    server
        .stop(Duration::from_secs(20))
        .await
        .expect("a clean stop");
    done.assert_in_order(each);
    let stats = counters.stats();
    assert_eq!((stats.dead_lettered, stats.refused), (0, 0), "{stats:?}");
    assert_eq!(done.total(), count * each, "once each: {stats:?}");
}

/// D9: 16 message groups over 10 members of a group: each in order, whoever has it.
///
/// # Panics
///
/// One is not, or a message is done twice.
pub async fn d9_message_groups_stay_in_order_over_many_members<H: Harness>(h: &H) {
    const GROUPS: usize = 16;
    if cannot_order(h).await {
        return;
    }
    let each = h.bounds().per_group.min(63);
    let (place, subscription) = place(h, "d9").await;
    let done = Done::default();
    let handler = {
        let done = done.clone();
        move |delivery: Delivery| {
            let done = done.clone();
            async move { done.add(&delivery) }
        }
    };
    let mut members = Vec::new();
    for _ in 0..10 {
        let server = Server::<_, ()>::new(h.driver().await)
            .subscribe_with(subscription.clone().concurrency(4), handler.clone());
        members.push(Started::start(server).await);
    }
    publish_all(h, groups(&place.topic, GROUPS, each)).await;
    let all = || done.first_times() >= GROUPS * each;
    eventually("all are done", 3 * h.bounds().deliver, all).await;
    join_all(members.into_iter().map(stop)).await;
    done.assert_in_order(each);
    assert_eq!(done.total(), GROUPS * each, "once each");
}

/// O3: a message that is stuck delays no other group that was received with it.
///
/// # Panics
///
/// Another group waits for it.
pub async fn o3_a_stuck_message_delays_no_other_group_that_was_received<H: Harness>(h: &H) {
    #[derive(Clone)]
    struct Site {
        gate: Arc<Semaphore>,
        done: Done,
    }
    async fn stuck_at_first(State(site): State<Site>, delivery: Delivery) -> Result<(), AnyError> {
        if delivery.message_group() == Some("stuck") && number(&delivery)? == 0 {
            site.gate.acquire().await?.forget();
        }
        site.done.add(&delivery)
    }
    if cannot_order(h).await {
        return;
    }
    let (place, subscription) = place(h, "o3").await;
    let site = Site {
        gate: Arc::new(Semaphore::new(0)),
        done: Done::default(),
    };
    // All are there before the first receive, so that each queue's are one batch.
    publish_all(h, [of_group(&place.topic, "stuck", 2)]).await;
    publish_all(h, groups(&place.topic, 7, 2)).await;
    let server = Server::new(h.driver().await)
        .subscribe_with(subscription, stuck_at_first)
        .with_state(site.clone());
    let server = Started::start(server).await;
    let others = || site.done.first_times() >= 14;
    eventually("the other groups are done", h.bounds().deliver, others).await;
    site.gate.add_permits(100);
    let all = || site.done.first_times() >= 16;
    eventually("all are done", h.bounds().deliver, all).await;
    server
        .stop(Duration::from_secs(20))
        .await
        .expect("a clean stop");
    site.done.assert_in_order(2);
    assert_eq!(site.done.total(), 16, "once each");
}

/// O5: message groups stay in order across drains and restarts, while messages fail. What is done
/// twice was counted.
///
/// # Panics
///
/// A group is not in order, or a message was done twice and not counted.
pub async fn o5_message_groups_stay_in_order_across_restarts<H: Harness>(h: &H) {
    const EACH: usize = 30;
    const GROUPS: usize = 8;
    if cannot_order(h).await {
        return;
    }
    let (place, subscription) = place(h, "o5").await;
    let done = Done::default();
    let tries = Arc::new(AtomicU64::new(0));
    let handler = {
        let done = done.clone();
        move |delivery: Delivery| {
            let (done, tries) = (done.clone(), tries.clone());
            async move {
                sleep(Duration::from_millis(20)).await;
                if tries.fetch_add(1, Relaxed).is_multiple_of(7) && delivery.attempt() == 1 {
                    return Err(AnyError::msg("fails at first"));
                }
                done.add(&delivery)
            }
        }
    };
    publish_all(h, groups(&place.topic, GROUPS, EACH)).await;
    let mut repeated = 0;
    for round in 1..=3 {
        let driver = h.driver().await;
        let server = Server::<_, ()>::new(driver)
            .subscribe_with(subscription.clone().concurrency(4), handler.clone());
        let counters = server.counters();
        let server = Started::start(server).await;
        let so_far = done.first_times();
        let enough = || round < 3 && done.first_times() >= so_far + GROUPS * EACH / 5;
        let all = || done.first_times() >= GROUPS * EACH;
        let late = h.invisible() + h.bounds().redelivery_late;
        let within = h.bounds().deliver + late;
        eventually("it gets on", within, || enough() || all()).await;
        server
            .stop(Duration::from_secs(20))
            .await
            .expect("a clean stop");
        let stats = counters.stats();
        repeated += stats.refused + stats.leases_lost;
    }
    done.assert_in_order(EACH);
    let twice = done.total() - GROUPS * EACH;
    assert!(
        twice as u64 <= repeated,
        "{twice} done twice, {repeated} told"
    );
}

/// A subscription that differs from its group in keeping order is refused when it binds.
///
/// # Panics
///
/// It is not, or the error does not name the group.
pub async fn a_group_and_its_subscriptions_agree_on_order<H: Harness>(h: &H) {
    if cannot_order(h).await {
        return;
    }
    let (ordered, fifo) = place(h, "agree").await;
    let plain = Place::new(h, "agree-plain").await;
    prime(h, &plain.topic, &plain.group).await;
    let wrong = [
        (&ordered.group, ordered.subscription(h)),
        (&plain.group, plain.subscription(h).fifo()),
    ];
    for (group, subscription) in wrong {
        let server = Server::new(h.driver().await)
            .subscribe_with(subscription, see)
            .with_state(Seen::default());
        let refused = kratos::Server::bind(server, start_context()).await;
        let error = refused.expect_err("refused").to_string();
        assert!(error.contains(group.as_str()), "{error}");
    }
    let server = Server::new(h.driver().await)
        .subscribe_with(fifo, see)
        .with_state(Seen::default());
    Started::start(server)
        .await
        .stop(h.invisible())
        .await
        .expect("a clean stop");
}
