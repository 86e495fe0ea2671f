//! The conformance kit: what every driver must do, as functions named after the laws.
//!
//! A driver's tests implement [`Harness`] and write one line, which makes a test of every law:
//!
//! ```text
//! kratos_broker::conformance!(MyHarness::start());
//! ```
//!
//! Laws run at once, each with its own topics and groups. Upper bounds on waits are part of a law;
//! they come from [`Bounds`]. A broker's group may begin at the end of a topic: where a law
//! publishes before its consumer runs, the kit lets the group receive once before ([`prime`]).

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a law fails by panicking"
)]

pub mod delivery;
pub mod features;
pub mod lease;
pub mod order;
pub mod refusal;
pub mod retry;
mod run;
pub mod shutdown;
pub mod trace;

use std::time::Duration;

use tokio::time::{Instant, timeout};

use crate::{
    Backoff, Consumer, Delivery, Driver, Group, Message, Policy, Resolution, Subscription, Topic,
    driver::{Capabilities, Filter, GroupSpec, Room, TopicSpec},
};

pub use self::run::{Started, block_on, eventually, start_context};

/// What the kit needs to know about a broker to test its driver.
pub trait Harness: Send + Sync + 'static {
    /// The driver under test.
    type Driver: Driver;

    /// A driver of its own (its own connections) on the broker.
    fn driver(&self) -> impl Future<Output = Self::Driver> + Send;

    /// Creates a topic that nobody used before. `hint` may become a part of its name.
    fn topic(&self, hint: &str) -> impl Future<Output = Topic> + Send;

    /// Creates a topic of a kind, where topics have kinds; `None` if this broker has not got that
    /// one, and the laws about it are not tried here.
    fn special_topic(
        &self,
        kind: TopicKind,
        hint: &str,
    ) -> impl Future<Output = Option<Topic>> + Send {
        let _ = kind;
        async { Some(self.topic(hint).await) }
    }

    /// Creates a group that nobody used before. The broker gives a message at least 4 attempts.
    fn group(&self, hint: &str) -> impl Future<Output = Group> + Send;

    /// Creates a group that consumes in order.
    fn ordered_group(&self, hint: &str) -> impl Future<Output = Group> + Send {
        self.group(hint)
    }

    /// A driver that answers `answer` when the broker asks about transactions of `topic`.
    fn checking_driver(
        &self,
        topic: &Topic,
        answer: Resolution,
    ) -> impl Future<Output = Self::Driver> + Send {
        let _ = (topic, answer);
        self.driver()
    }

    /// Whether transactions may be tried here.
    fn transactions(&self) -> bool {
        true
    }

    /// The topic of a group's dead letters, if they are in one.
    fn dead_letter_topic(&self, group: &Group) -> Option<Topic> {
        let _ = group;
        None
    }

    /// The dead letters of a group.
    fn dead_letters(&self, group: &Group) -> impl Future<Output = Vec<Delivery>> + Send;

    /// The shortest invisible duration that the broker takes and the machine can keep.
    fn invisible(&self) -> Duration;

    /// How long things may take on this broker.
    fn bounds(&self) -> Bounds {
        Bounds::default()
    }
}

/// What a topic is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TopicKind {
    /// Message groups in order.
    Ordered,
    /// Messages that come later.
    Delayed,
    /// Messages with priorities.
    Prioritised,
    /// Messages of transactions.
    Transactional,
}

/// How long things may take on a broker: upper bounds of the laws' waits.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// From a publish to the handler, for the largest law (5,000 messages).
    pub deliver: Duration,
    /// By how much a redelivery may be later than asked for.
    pub redelivery_late: Duration,
    /// For how long a first receive must be under way until the broker counts from there.
    pub prime: Duration,
    /// An idle server stops within this.
    pub idle_stop: Duration,
    /// How many messages each of 64 message groups gets in the laws of order.
    pub per_group: usize,
}

impl Default for Bounds {
    /// Right for a broker on this machine that revives messages up to 4 s late.
    fn default() -> Self {
        Self {
            deliver: Duration::from_secs(60),
            redelivery_late: Duration::from_secs(6),
            prime: Duration::from_secs(3),
            idle_stop: Duration::from_secs(1),
            per_group: 1_000,
        }
    }
}

/// A topic and a group of one law, both new.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) topic: Topic,
    pub(crate) group: Group,
}

impl Place {
    pub(crate) async fn new<H: Harness>(h: &H, hint: &str) -> Self {
        Self {
            topic: h.topic(hint).await,
            group: h.group(hint).await,
        }
    }

    /// On a topic and a group that keep order.
    pub(crate) async fn ordered<H: Harness>(h: &H, hint: &str) -> Self {
        Self {
            topic: h
                .special_topic(TopicKind::Ordered, hint)
                .await
                .expect("a topic that keeps order"),
            group: h.ordered_group(hint).await,
        }
    }

    /// A subscription with a back-off of 1 s and the harness's invisible duration.
    pub(crate) fn subscription<H: Harness>(&self, h: &H) -> Subscription {
        subscription(h, &self.topic, &self.group)
    }
}

pub(crate) fn subscription<H: Harness>(h: &H, topic: &Topic, group: &Group) -> Subscription {
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
pub(crate) async fn prime_fifo<H: Harness>(h: &H, topic: &Topic, group: &Group) {
    let received = receive_once(h, topic, group, true).await;
    assert_eq!(received, 0, "a new topic has messages");
}

/// As [`prime`], on a topic that may have messages.
pub(crate) async fn prime_any<H: Harness>(h: &H, topic: &Topic, group: &Group) {
    receive_once(h, topic, group, false).await;
}

pub(crate) async fn can<H: Harness>(h: &H, what: fn(&Capabilities) -> bool) -> bool {
    what(&h.driver().await.capabilities())
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
pub(crate) fn numbered(topic: &Topic, count: usize) -> impl Iterator<Item = Message> {
    (0..count).map(move |n| Message::new(topic, n.to_string()))
}

/// Makes a `#[test]` of every law. The argument is an expression that makes a [`Harness`].
#[macro_export]
macro_rules! conformance {
    ($harness:expr) => {
        $crate::conformance!(@laws $harness;
            delivery::{
                d1_messages_published_while_nobody_receives_arrive_once_and_unchanged,
                d2_many_publishers_and_subscribers_lose_nothing,
                d3_topics_at_once_get_exactly_their_set,
                d4_messages_that_failed_once_are_handled,
                d11_topics_of_a_group_do_not_mix,
                d14_two_groups_each_get_all,
            }
            retry::{
                r1_backoff_is_never_early,
                r3_a_body_that_cannot_be_decoded_is_a_dead_letter_at_attempt_1,
                r4_a_panic_is_a_failure_of_its_message,
                r7_cancellation_by_shutdown_is_no_failure,
            }
            lease::{
                l1_a_handler_of_five_invisible_times_is_delivered_once,
            }
            shutdown::{
                s1_messages_in_flight_are_acknowledged_at_stop,
                s5_an_idle_server_stops_at_once,
                s9_acknowledgements_are_flushed_before_the_end,
            }
            trace::{
                t1_the_handler_is_a_child_of_the_sender_and_every_parent_is_exported,
                t4_a_bad_or_absent_traceparent_starts_a_new_root,
            }
            order::{
                d5_the_second_message_of_a_group_waits_for_the_first,
                o1_message_groups_stay_in_order_over_many_lanes,
                o2_message_groups_stay_in_order_while_messages_fail,
                o3_a_stuck_message_delays_no_other_group_that_was_received,
                o5_message_groups_stay_in_order_across_restarts,
                d17_settling_out_of_order_is_safe,
                d17_what_is_done_behind_a_message_that_is_handed_back_comes_again,
                a_group_and_its_subscriptions_agree_on_order,
            }
            features::{
                a_delayed_message_comes_at_its_time_unless_it_is_called_back,
                an_sql_filter_chooses_by_headers,
                a_higher_priority_comes_first,
                a_transaction_delivers_what_was_committed,
                a_transaction_without_a_checker_is_refused,
                a_broadcast_reaches_every_instance,
                dead_letters_can_be_consumed,
            }
            refusal::{
                what_the_driver_cannot_do_it_refuses,
            }
        );
    };
    (@laws $harness:expr; $($module:ident::{$($law:ident,)*})*) => {
        $($(
            #[test]
            fn $law() {
                $crate::testing::block_on(async {
                    let harness = $harness;
                    $crate::testing::$module::$law(&harness).await;
                });
            }
        )*)*
    };
}
