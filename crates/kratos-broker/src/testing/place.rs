//! Topics and groups of a law, and how it comes to them.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::{Harness, TopicKind, start_context};
use crate::{
    Backoff, Consumer, Delivery, Driver, Group, Message, Policy, Subscription, Topic,
    driver::{Capabilities, Filter, GroupSpec, Room, TopicSpec},
};

/// A topic and a group of one law, both new.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) topic: Topic,
    pub(super) group: Group,
}

impl Place {
    pub(super) async fn new<H: Harness>(h: &H, hint: &str) -> Self {
        Self {
            topic: h.topic(hint).await,
            group: h.group(hint).await,
        }
    }

    /// On a topic and a group that keep order.
    pub(super) async fn ordered<H: Harness>(h: &H, hint: &str) -> Self {
        Self {
            topic: h
                .special_topic(TopicKind::Ordered, hint)
                .await
                .expect("a topic that keeps order"),
            group: h.ordered_group(hint).await,
        }
    }

    /// A subscription with a back-off of 1 s and the harness's invisible duration.
    pub(super) fn subscription<H: Harness>(&self, h: &H) -> Subscription {
        subscription(h, &self.topic, &self.group)
    }
}

pub(super) fn subscription<H: Harness>(h: &H, topic: &Topic, group: &Group) -> Subscription {
    Subscription::new(topic, group)
        .invisible_duration(h.invisible())
        .policy(Policy::new().backoff(Backoff::fixed(Duration::from_secs(1))))
}

/// Lets a group receive from a topic once, so that it gets what is published from now on.
///
/// # Panics
///
/// The group cannot be joined, or received a message.
pub async fn prime<H: Harness>(h: &H, topic: &Topic, group: &Group) {
    let received = receive_once(h, topic, group, false).await;
    assert_eq!(received, 0, "a new topic has messages");
}

/// As [`prime`], with a group that consumes in order.
pub(super) async fn prime_fifo<H: Harness>(h: &H, topic: &Topic, group: &Group) {
    let received = receive_once(h, topic, group, true).await;
    assert_eq!(received, 0, "a new topic has messages");
}

/// As [`prime`], on a topic that may have messages.
pub(super) async fn prime_any<H: Harness>(h: &H, topic: &Topic, group: &Group) {
    receive_once(h, topic, group, false).await;
}

pub(super) async fn can<H: Harness>(h: &H, what: fn(&Capabilities) -> bool) -> bool {
    what(&h.driver().await.capabilities())
}

/// A law, or a part of one, is not tried here: its test passes, and says so among its output.
pub(super) fn not_tried(why: &str) {
    eprintln!("not tried: {why}");
}

async fn receive_once<H: Harness>(h: &H, topic: &Topic, group: &Group, fifo: bool) -> usize {
    let driver = h.driver().await;
    let topics = vec![TopicSpec::new(topic, Filter::All)];
    let spec = GroupSpec::new(group, topics, h.invisible()).fifo(fifo);
    let consumer = driver
        .consumer(spec, start_context())
        .await
        .expect("the group is joined");
    let room = Room::new(1, 1024 * 1024);
    let received = timeout(h.bounds().prime, consumer.receive(topic, room)).await;
    let received = received.map_or(0, |received| received.expect("a receive").len());
    consumer.stop_receiving().await;
    consumer
        .close(Instant::now() + Duration::from_secs(5))
        .await
        .expect("the group is left");
    received
}

/// Bodies `0`, `1`, .. of `topic`.
pub(super) fn numbered(topic: &Topic, count: usize) -> impl Iterator<Item = Message> {
    (0..count).map(move |n| Message::new(topic, n.to_string()))
}

/// The dead letters of a group, once there are any: a broker may need its time to show them.
///
/// # Panics
///
/// There are none within the bounds.
pub(super) async fn dead_letters<H: Harness>(h: &H, group: &Group) -> Vec<Delivery> {
    let within = h.bounds().deliver;
    let until = Instant::now() + within;
    loop {
        let dead = h.dead_letters(group).await;
        if !dead.is_empty() {
            return dead;
        }
        assert!(Instant::now() < until, "no dead letter within {within:?}");
        sleep(Duration::from_millis(20)).await;
    }
}
