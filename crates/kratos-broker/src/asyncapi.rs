//! The [AsyncAPI] document of what a server consumes and what typed publishers send, made from the
//! types: feature `asyncapi`.
//!
//! Every subscription is there, and every [`TopicPublisher`](crate::TopicPublisher) that is alive
//! when the document is made. A type has a schema if one of them asked for it
//! ([`Subscription::schema`], [`TopicPublisher::schema`](crate::TopicPublisher::schema)), and its name
//! otherwise.
//!
//! What is made here is one server's part: it has neither `asyncapi` nor `info`, which belong to
//! the App.
//!
//! Retries and dead letters have no words in AsyncAPI: operations say them as `x-retry` and
//! `x-dead-letter`. What only one broker knows is said by its driver, as `x-<system>`
//! ([`Driver::extension`]).
//!
//! Schemas are of the JSON that is read: in a topic's messages, what a consumer must expect.
//!
//! [AsyncAPI]: https://www.asyncapi.com/docs/reference/specification/v3.0.0

mod outlets;
mod parts;
mod schemas;
mod write;

use std::time::Duration;

pub use self::outlets::Outlets;
pub(crate) use self::{
    outlets::{Outlet, Sending},
    schemas::SchemaOf,
};
use crate::{DeadLetter, Driver, Error, Result, Subscription, Topic, driver::Filter};

/// The part of the document that one server writes: its broker, what it consumes, and what typed
/// publishers send by the same driver. `server` is the server's name.
///
/// ```
/// use kratos_broker::{Json, Router, Subscription, asyncapi, memory};
///
/// #[derive(serde::Deserialize, schemars::JsonSchema)]
/// struct Order { id: String }
///
/// async fn bill(Json(order): Json<Order>) {}
///
/// let subscription = Subscription::new("orders", "billing").schema::<Order>();
/// let router: Router = Router::new().subscribe_with(subscription, bill);
/// let part = asyncapi::document(&memory::Broker::new(), "memory", router.subscriptions());
/// assert_eq!(part["operations"]["receive_orders_billing"]["action"], "receive");
/// assert_eq!(part["components"]["schemas"]["Order"]["required"][0], "id");
/// ```
pub fn document<'s, D: Driver>(
    driver: &D,
    server: &str,
    subscriptions: impl IntoIterator<Item = &'s Subscription>,
) -> serde_json::Value {
    let subscriptions: Vec<&Subscription> = subscriptions.into_iter().collect();
    let sendings = driver.outlets().map(Outlets::alive).unwrap_or_default();
    let documented = subscriptions.iter().filter_map(|it| it.schema);
    let documented = documented.chain(sendings.iter().filter_map(|it| it.schema));
    let mut document = write::Document::new(driver, server, documented);
    for subscription in subscriptions {
        document.receive(subscription);
    }
    for sending in &sendings {
        document.send(sending);
    }
    document.into_value()
}

/// What a driver is asked to say more about, in words that only its broker has.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Part<'a> {
    /// The broker.
    Server,
    /// A topic.
    Topic(TopicPart<'a>),
    /// What a group consumes of a topic.
    Subscription(SubscriptionPart<'a>),
    /// What a typed publisher sends to a topic.
    Publisher(PublisherPart<'a>),
}

/// A topic, as a service uses it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TopicPart<'a> {
    /// Its name.
    pub topic: &'a Topic,
    /// It is consumed or sent to in message groups, whose order the broker keeps.
    pub ordered: bool,
}

/// A subscription.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SubscriptionPart<'a> {
    /// The topic.
    pub topic: &'a Topic,
    /// The group.
    pub group: &'a str,
    /// Which of the topic's messages.
    pub filter: &'a Filter,
    /// In the order that the broker keeps.
    pub fifo: bool,
    /// Every instance gets every message.
    pub broadcast: bool,
    /// After how many attempts a message is given up, by the service's policy.
    pub max_attempts: u32,
    /// For how long a received message is hidden from others.
    pub invisible: Duration,
    /// Where messages go that are given up.
    pub dead_letter: &'a DeadLetter,
}

/// A typed publisher.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PublisherPart<'a> {
    /// The topic.
    pub topic: &'a Topic,
    /// The tag of its messages.
    pub tag: Option<&'a str>,
    /// Its messages have a key.
    pub keyed: bool,
    /// Its messages belong to message groups.
    pub grouped: bool,
}

/// Refuses a subscription that is documented as something else than its handler takes.
pub(crate) fn check(subscription: &Subscription) -> Result<()> {
    let Some(schema) = &subscription.schema else {
        return Ok(());
    };
    let bodies = subscription.bodies();
    if bodies.is_empty() || bodies.iter().any(|body| body.id() == schema.id) {
        return Ok(());
    }
    let (takes, documented) = (bodies[0].name(), schema.name);
    Err(Error::invalid(format!(
        "subscription {subscription}: its handler takes {takes}, its schema is that of \
         {documented}: write .schema::<{takes}>()"
    )))
}

impl<'a> SubscriptionPart<'a> {
    fn of(subscription: &'a Subscription) -> Self {
        let policy = match subscription.fifo {
            true => &subscription.ordered_policy,
            false => &subscription.policy,
        };
        Self {
            topic: &subscription.topic,
            group: &subscription.group,
            filter: &subscription.filter,
            fifo: subscription.fifo,
            broadcast: subscription.broadcast,
            max_attempts: policy.max_attempts,
            invisible: subscription.invisible,
            dead_letter: &subscription.dead_letter,
        }
    }
}
