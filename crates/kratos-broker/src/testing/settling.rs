//! D17, S8: settlements one by one, past the engine.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use tokio::time::{Instant, sleep, timeout};

use super::{
    Harness, Started,
    order::{self, cannot_order, of_group},
    place::{Place, not_tried, numbered, prime},
    start_context,
    witness::{Seen, publish_all, see},
};
use crate::{
    Consumer, Driver, Message, Server, Settlement, Topic,
    driver::{Filter, GroupSpec, Leased, Room, Ticket, TopicSpec},
};

/// Longer than any driver tries to settle.
const ANSWERED_WITHIN: Duration = Duration::from_secs(60);

/// D17: settling out of order is safe: nothing that was acknowledged comes again.
///
/// # Panics
///
/// An acknowledgement is refused, or a message comes again.
pub async fn d17_settling_out_of_order_is_safe<H: Harness>(h: &H) {
    let (place, fifo) = any_place(h, "d17").await;
    publish_all(h, [of_groups_if(&place.topic, fifo)]).await;
    let consumer = consumer(h, &place, fifo, h.invisible()).await;
    let leases = receive(h, &consumer, &place.topic, 6).await;
    for (number, leased) in leases.into_iter().enumerate().rev() {
        consumer.settle(Ticket::new(number as u64), leased.lease, Settlement::Ack);
    }
    let answers = answers::<H>(&consumer, 6).await;
    assert!(answers.values().all(|kept| *kept), "kept: {answers:?}");
    close::<H>(consumer).await;

    let again = Seen::default();
    let mut subscription = place.subscription(h);
    if fifo {
        subscription = subscription.fifo();
    }
    let server = Server::new(h.driver().await)
        .subscribe_with(subscription, see)
        .with_state(again.clone());
    let server = Started::start(server).await;
    sleep(h.invisible() + h.bounds().redelivery_late).await;
    server.stop(h.invisible()).await.expect("a clean stop");
    assert!(again.all().is_empty(), "seen again: {:?}", again.ids());
}

/// D17 on batches that are units: what is done behind a message that is handed back is told to come
/// again, and comes again.
///
/// # Panics
///
/// It is told to be confirmed, or does not come.
pub async fn d17_what_is_done_behind_a_message_that_is_handed_back_comes_again<H: Harness>(h: &H) {
    if cannot_order(h).await {
        return;
    }
    let (place, fifo) = any_place(h, "d17-unit").await;
    publish_all(h, [of_group(&place.topic, "one", 3)]).await;
    let consumer = consumer(h, &place, fifo, h.invisible()).await;
    let Some(leases) = unit(h, &consumer, &place.topic, 3).await else {
        return not_tried("this broker settles every message for itself");
    };
    let ids: Vec<_> = leases.iter().map(|l| l.delivery.id().clone()).collect();
    let mut leases = leases.into_iter().map(|leased| leased.lease);
    let mut settle = |number: u64, how| {
        consumer.settle(Ticket::new(number), leases.next().unwrap(), how);
    };
    settle(0, Settlement::Ack);
    settle(1, Settlement::HandBack);
    settle(2, Settlement::Ack);
    let answers = answers::<H>(&consumer, 3).await;
    let kept: Vec<_> = answers.into_values().collect();
    assert_eq!(kept, [true, true, false], "the last is told to come again");
    let again = receive(h, &consumer, &place.topic, 2).await;
    let again: Vec<_> = again.iter().map(|l| l.delivery.id().clone()).collect();
    assert_eq!(again, ids[1..]);
    close::<H>(consumer).await;
}

/// A batch of `count` messages that is one unit; `None` if batches are none here. One that came in
/// pieces is handed back, and comes whole.
async fn unit<H: Harness>(
    h: &H,
    consumer: &ConsumerOf<H>,
    topic: &Topic,
    count: usize,
) -> Option<Vec<LeasedOf<H>>> {
    let until = Instant::now() + h.bounds().deliver;
    loop {
        let leases = receive(h, consumer, topic, 1).await;
        if leases.iter().any(|leased| leased.place.is_none()) {
            return None;
        }
        if leases.len() >= count {
            return Some(leases);
        }
        assert!(Instant::now() < until, "{} of {count} come", leases.len());
        hand_back::<H>(consumer, leases).await;
    }
}

/// S8: what is handed back at a stop comes to another member at once, and does not wait for its lease
/// to end.
///
/// # Panics
///
/// It comes late, or does not come.
pub async fn s8_what_is_handed_back_comes_elsewhere_before_its_lease_ends<H: Harness>(h: &H) {
    const MESSAGES: usize = 6;
    let within = h.bounds().redelivery_late.max(Duration::from_secs(5));
    let lease = (4 * h.invisible()).max(2 * within);
    let place = Place::new(h, "s8-back").await;
    prime(h, &place.topic, &place.group).await;
    let ids = publish_all(h, [numbered(&place.topic, MESSAGES).collect()]).await;
    let first = consumer(h, &place, false, lease).await;
    let leases = receive(h, &first, &place.topic, MESSAGES).await;
    first.stop_receiving().await;
    let handed_back = Instant::now();
    hand_back::<H>(&first, leases).await;
    close::<H>(first).await;
    let second = consumer(h, &place, false, lease).await;
    let again = receive(h, &second, &place.topic, MESSAGES).await;
    let took = handed_back.elapsed();
    assert!(
        took <= within,
        "back after {took:?}, of a lease of {lease:?}"
    );
    let again: BTreeSet<_> = again.iter().map(|l| l.delivery.id().clone()).collect();
    assert_eq!(again, ids);
    close::<H>(second).await;
}

/// Hands all back, and waits until that is confirmed.
async fn hand_back<H: Harness>(consumer: &ConsumerOf<H>, leases: Vec<LeasedOf<H>>) {
    let count = leases.len();
    for (number, leased) in leases.into_iter().enumerate() {
        let ticket = Ticket::new(number as u64);
        consumer.settle(ticket, leased.lease, Settlement::HandBack);
    }
    let answers = answers::<H>(consumer, count).await;
    assert!(
        answers.values().all(|done| *done),
        "handed back: {answers:?}"
    );
}

/// Ordered where the driver can.
async fn any_place<H: Harness>(h: &H, hint: &str) -> (Place, bool) {
    if cannot_order(h).await {
        let place = Place::new(h, hint).await;
        prime(h, &place.topic, &place.group).await;
        return (place, false);
    }
    (order::place(h, hint).await.0, true)
}

/// Six messages, each of a group of its own if there are groups.
fn of_groups_if(topic: &Topic, groups: bool) -> Vec<Message> {
    let message = |n: usize| {
        let message = Message::new(topic, n.to_string());
        if groups {
            message.group(format!("g{n}"))
        } else {
            message
        }
    };
    (0..6).map(message).collect()
}

pub(super) type ConsumerOf<H> = <<H as Harness>::Driver as Driver>::Consumer;
pub(super) type LeasedOf<H> = Leased<<ConsumerOf<H> as Consumer>::Lease>;

pub(super) async fn consumer<H: Harness>(
    h: &H,
    place: &Place,
    fifo: bool,
    lease: Duration,
) -> ConsumerOf<H> {
    let topics = vec![TopicSpec::new(&place.topic, Filter::All)];
    let spec = GroupSpec::new(&place.group, topics, lease).fifo(fifo);
    let joined = h.driver().await.consumer(spec, start_context()).await;
    joined.expect("the group is joined")
}

/// Receives at least `least` messages.
pub(super) async fn receive<H: Harness>(
    h: &H,
    consumer: &ConsumerOf<H>,
    topic: &Topic,
    least: usize,
) -> Vec<LeasedOf<H>> {
    let mut all = Vec::new();
    let until = Instant::now() + h.bounds().deliver;
    while all.len() < least {
        let received = consumer.receive(topic, Room::new(32, 1 << 20));
        let left = until.saturating_duration_since(Instant::now());
        let received = timeout(left, received).await.expect("messages in time");
        all.extend(received.expect("a receive"));
    }
    all
}

/// Which of the first `count` settlements were confirmed.
pub(super) async fn answers<H: Harness>(
    consumer: &ConsumerOf<H>,
    count: usize,
) -> BTreeMap<u64, bool> {
    let mut answers = BTreeMap::new();
    let all = async {
        while answers.len() < count {
            for settled in consumer.settled().await {
                answers.insert(settled.ticket.number(), settled.result.is_ok());
            }
        }
    };
    let all = timeout(ANSWERED_WITHIN, all).await;
    assert!(
        all.is_ok(),
        "{count} settlements, answered within {ANSWERED_WITHIN:?}: {answers:?}"
    );
    answers
}

pub(super) async fn close<H: Harness>(consumer: ConsumerOf<H>) {
    consumer.stop_receiving().await;
    let by = Instant::now() + Duration::from_secs(5);
    // A lease that is still out does not matter here.
    let _ = consumer.close(by).await;
}
