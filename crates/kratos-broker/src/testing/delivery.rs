//! D: delivery.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::future::join_all;

use super::{
    Harness, Started, eventually,
    place::{Place, numbered, prime, subscription},
    witness::{Seen, publish_all, see, stop},
};
use crate::{AnyError, Bytes, Delivery, Group, Message, Router, Server, State, Topic};

/// D1: messages published while nobody receives arrive once each, body and headers unchanged.
///
/// # Panics
///
/// They do not.
pub async fn d1_messages_published_while_nobody_receives_arrive_once_and_unchanged<H: Harness>(
    h: &H,
) {
    let place = Place::new(h, "d1").await;
    prime(h, &place.topic, &place.group).await;
    let body = |n: u8| Bytes::from(vec![n, 0, 0xff, b'"', n]);
    let message = |n: u8| {
        let message = Message::new(&place.topic, body(n));
        message
            .header("number", n.to_string())
            .header("Mixed-Case", "ä ö")
            .key(format!("key-{n}"))
    };
    let ids = publish_all(h, [(0..100).map(message).collect()]).await;
    assert_eq!(ids.len(), 100, "every message has an id of its own");

    let seen = Seen::default();
    let server = Server::new(h.driver().await)
        .subscribe_with(place.subscription(h), see)
        .with_state(seen.clone());
    let server = Started::start(server).await;
    eventually("all arrive", h.bounds().deliver, || seen.has_all(&ids)).await;
    server.stop(h.invisible()).await.expect("a clean stop");

    assert!(
        seen.ids().values().all(|times| *times == 1),
        "once each: {:?}",
        seen.ids()
    );
    for delivery in seen.all() {
        let number = delivery
            .headers()
            .get("number")
            .expect("the header")
            .parse()
            .unwrap();
        assert_eq!(*delivery.body(), body(number));
        assert_eq!(delivery.headers().get("Mixed-Case"), Some("ä ö"));
        assert!(
            delivery
                .headers()
                .iter()
                .any(|(name, _)| name == "Mixed-Case"),
            "its case"
        );
        assert_eq!(delivery.keys(), [format!("key-{number}")]);
        assert_eq!((delivery.topic(), delivery.attempt()), (&place.topic, 1));
    }
}

/// D2: 5,000 messages of 50 publishers to 50 lanes in 5 servers: every id arrives.
///
/// # Panics
///
/// One does not.
pub async fn d2_many_publishers_and_subscribers_lose_nothing<H: Harness>(h: &H) {
    let place = Place::new(h, "d2").await;
    prime(h, &place.topic, &place.group).await;
    let seen = Seen::default();
    let mut servers = Vec::new();
    for _ in 0..5 {
        let server = Server::new(h.driver().await)
            .subscribe_with(place.subscription(h).concurrency(10), see)
            .with_state(seen.clone());
        servers.push(Started::start(server).await);
    }
    let ids = publish_all(h, (0..50).map(|_| numbered(&place.topic, 100).collect())).await;
    assert_eq!(ids.len(), 5_000);
    eventually("every id", h.bounds().deliver, || seen.has_all(&ids)).await;
    for server in servers {
        server.stop(h.invisible()).await.expect("a clean stop");
    }
}

/// D3: 20 topics with 100 messages each, at once: each subscription gets exactly its set.
///
/// # Panics
///
/// One gets more or less.
pub async fn d3_topics_at_once_get_exactly_their_set<H: Harness>(h: &H) {
    let group = h.group("d3").await;
    let mut topics = Vec::new();
    for _ in 0..20 {
        topics.push(h.topic("d3").await);
    }
    let (server, seen) = serve_topics(h, &topics, &group).await;
    let parts = topics.iter().map(|topic| numbered(topic, 100).collect());
    let ids = publish_all(h, parts).await;
    let within = h.bounds().deliver;
    eventually("all arrive", within, || {
        seen.values().map(|s| s.ids().len()).sum::<usize>() >= 2_000
    })
    .await;
    server.stop(h.invisible()).await.expect("a clean stop");
    exactly_their_set(&seen, 100);
    let all: BTreeSet<_> = seen
        .values()
        .flat_map(|seen| seen.ids().into_keys())
        .collect();
    assert_eq!(all, ids);
}

/// D4: of 100 messages some fail at first; all are handled.
///
/// # Panics
///
/// One is not, or too late.
pub async fn d4_messages_that_failed_once_are_handled<H: Harness>(h: &H) {
    let place = Place::new(h, "d4").await;
    prime(h, &place.topic, &place.group).await;
    async fn fail_some(State(seen): State<Seen>, delivery: Delivery) -> Result<(), AnyError> {
        let number: u32 = std::str::from_utf8(delivery.body())?.parse()?;
        if number.is_multiple_of(3) && delivery.attempt() == 1 {
            return Err(AnyError::msg("fails at first"));
        }
        seen.add(delivery);
        Ok(())
    }
    let seen = Seen::default();
    let server = Server::new(h.driver().await)
        .subscribe_with(place.subscription(h), fail_some)
        .with_state(seen.clone());
    let server = Started::start(server).await;
    let ids = publish_all(h, [numbered(&place.topic, 100).collect()]).await;
    let bounds = h.bounds();
    eventually(
        "all are handled",
        bounds.deliver + bounds.redelivery_late,
        || seen.has_all(&ids),
    )
    .await;
    server.stop(h.invisible()).await.expect("a clean stop");
    assert!(h.dead_letters(&place.group).await.is_empty());
    let retried = seen
        .all()
        .into_iter()
        .filter(|delivery| delivery.attempt() > 1)
        .count();
    assert!(retried >= 34, "every third has failed once: {retried}");
}

/// D11: two topics of one group do not mix.
///
/// # Panics
///
/// A subscription gets a message of the other topic.
pub async fn d11_topics_of_a_group_do_not_mix<H: Harness>(h: &H) {
    let group = h.group("d11").await;
    let topics = [h.topic("d11-a").await, h.topic("d11-b").await];
    let (server, seen) = serve_topics(h, &topics, &group).await;
    publish_all(h, topics.iter().map(|topic| numbered(topic, 20).collect())).await;
    let within = h.bounds().deliver;
    eventually("all arrive", within, || {
        seen.values().all(|s| s.ids().len() >= 20)
    })
    .await;
    server.stop(h.invisible()).await.expect("a clean stop");
    exactly_their_set(&seen, 20);
}

/// D14: two groups on one topic each get all.
///
/// # Panics
///
/// One does not.
pub async fn d14_two_groups_each_get_all<H: Harness>(h: &H) {
    let place = Place::new(h, "d14").await;
    let other = Place {
        topic: place.topic.clone(),
        group: h.group("d14-other").await,
    };
    let (a, b) = (Seen::default(), Seen::default());
    prime(h, &place.topic, &place.group).await;
    prime(h, &other.topic, &other.group).await;
    let first: Router = Router::new()
        .subscribe_with(place.subscription(h), see)
        .with_state(a.clone());
    let second: Router = Router::new()
        .subscribe_with(other.subscription(h), see)
        .with_state(b.clone());
    let server = Server::new(h.driver().await).routes(first).routes(second);
    let server = Started::start(server).await;
    let ids = publish_all(h, [numbered(&place.topic, 50).collect()]).await;
    let within = h.bounds().deliver;
    eventually("both get all", within, || {
        a.has_all(&ids) && b.has_all(&ids)
    })
    .await;
    server.stop(h.invisible()).await.expect("a clean stop");
}

/// D16: several groups on one topic and several topics in one group, in one process: each
/// subscription gets exactly its set.
///
/// # Panics
///
/// One gets more or less.
pub async fn d16_groups_and_topics_of_one_process_each_get_their_set<H: Harness>(h: &H) {
    let topics = [
        h.topic("d16").await,
        h.topic("d16").await,
        h.topic("d16").await,
    ];
    let groups = [h.group("d16").await, h.group("d16").await];
    let mut served = Vec::new();
    for group in &groups {
        served.push(serve_topics(h, &topics, group).await);
    }
    let parts = topics.iter().map(|topic| numbered(topic, 20).collect());
    publish_all(h, parts).await;
    let all = || {
        let each = served.iter().flat_map(|(_, seen)| seen.values());
        each.map(|seen| seen.ids().len()).sum::<usize>() >= 120
    };
    eventually("all arrive", h.bounds().deliver, all).await;
    for (server, seen) in served {
        stop(server).await;
        exactly_their_set(&seen, 20);
    }
}

/// One server in one group, with a subscription of its own for each topic.
async fn serve_topics<H: Harness>(
    h: &H,
    topics: &[Topic],
    group: &Group,
) -> (Started, BTreeMap<Topic, Seen>) {
    let mut router: Router = Router::new();
    let mut seen = BTreeMap::new();
    join_all(topics.iter().map(|topic| prime(h, topic, group))).await;
    for topic in topics {
        let own = Seen::default();
        let route: Router = Router::new()
            .subscribe_with(subscription(h, topic, group).concurrency(2), see)
            .with_state(own.clone());
        router = router.merge(route);
        seen.insert(topic.clone(), own);
    }
    (
        Started::start(Server::new(h.driver().await).routes(router)).await,
        seen,
    )
}

fn exactly_their_set(seen: &BTreeMap<Topic, Seen>, count: usize) {
    for (topic, seen) in seen {
        assert_eq!(seen.ids().len(), count, "messages of {topic}");
        assert!(
            seen.all().iter().all(|delivery| delivery.topic() == topic),
            "only {topic}"
        );
    }
}
