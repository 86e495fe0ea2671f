//! D: what messages may contain, and names that nobody knows.

use std::time::Duration;

use kratos::Server as _;
use tokio::time::timeout;

use super::{
    Harness, eventually,
    place::{Place, can, prime, subscription},
    start_context,
    witness::{Seen, publish, publish_all, see, serve_seen, stop},
};
use crate::{Bytes, Message, Publisher, Server, Topic, driver::Capabilities};

/// How long a driver may take to refuse a name that nobody knows.
const REFUSED_WITHIN: Duration = Duration::from_secs(40);

/// D18: a body that is no text and a header of 4 KiB arrive as they were; an empty body is refused
/// or arrives empty; a header with NUL is refused.
///
/// # Panics
///
/// One is changed, or lost.
pub async fn d18_odd_bodies_and_headers_arrive_unchanged_or_are_refused<H: Harness>(h: &H) {
    let place = Place::new(h, "d18").await;
    prime(h, &place.topic, &place.group).await;
    let seen = Seen::default();
    let server = serve_seen(h, place.subscription(h), &seen).await;
    let no_text = Bytes::from_static(&[0xff, 0x00, 0xc3, 0x28, 0x01, 0x02, 0x0a]);
    let long = "x".repeat(4096);
    let binary = publish(h, Message::new(&place.topic, no_text.clone())).await;
    let message = Message::new(&place.topic, "header").header("long", long.clone());
    let header = publish(h, message).await;
    let publisher = Publisher::new(h.driver().await);
    let empty = publisher.publish(Message::new(&place.topic, "")).await;
    let empty = match empty {
        Ok(receipt) => Some(receipt.id),
        Err(error) => {
            assert!(
                error.is_invalid(),
                "an empty body is refused as such: {error}"
            );
            None
        }
    };
    for (name, value) in [("nul", "a\0b"), ("n\0l", "a")] {
        let refused = publisher
            .publish(Message::new(&place.topic, "x").header(name, value))
            .await
            .expect_err("refused");
        assert!(refused.is_invalid(), "{refused}");
    }
    let count = 2 + usize::from(empty.is_some());
    eventually("they arrive", h.bounds().deliver, || {
        seen.ids().len() >= count
    })
    .await;
    stop(server).await;
    let all = seen.all();
    let got = |id: &crate::MessageId| all.iter().find(|d| d.id() == id).expect("it has come");
    assert_eq!(*got(&binary).body(), no_text);
    assert_eq!(got(&header).headers().get("long"), Some(&*long));
    if let Some(id) = empty {
        assert!(got(&id).body().is_empty());
    }
    assert_eq!(seen.ids().len(), count, "and nothing else");
}

/// D19: a topic that nobody made, to publish to or to subscribe to, and messages with a tag that
/// nobody wants delay no other.
///
/// # Panics
///
/// They do.
pub async fn d19_an_unknown_topic_or_tag_delays_no_other<H: Harness>(h: &H) {
    let place = Place::new(h, "d19").await;
    prime(h, &place.topic, &place.group).await;
    let nobodys = Topic::from(format!("{}-nobody-made-this", place.topic));
    let mut wanted = place.subscription(h);
    if can(h, Capabilities::can_tag_filter).await {
        wanted = wanted.tags(["wanted"]);
    }
    let seen = Seen::default();
    let server = serve_seen(h, wanted, &seen).await;

    let publisher = Publisher::new(h.driver().await);
    let unknown = async {
        for _ in 0..3 {
            // Refused, or taken by a broker that makes topics: either way it is answered.
            let answer = publisher.publish(Message::new(&nobodys, "x"));
            let _ = timeout(REFUSED_WITHIN, answer).await.expect("an answer");
        }
    };
    let others = async {
        let message = |n: usize| {
            let tag = if n.is_multiple_of(2) {
                "wanted"
            } else {
                "other"
            };
            Message::new(&place.topic, n.to_string()).tag(tag)
        };
        publish_all(h, [(0..40).map(message).collect()]).await;
        eventually("the wanted ones arrive", h.bounds().deliver, || {
            seen.ids().len() >= 20
        })
        .await;
    };
    let subscribed = async {
        let group = h.group("d19-nobody").await;
        let server = Server::new(h.driver().await)
            .subscribe_with(subscription(h, &nobodys, &group), see)
            .with_state(Seen::default());
        let bound = timeout(REFUSED_WITHIN, server.bind(start_context())).await;
        if let Err(error) = bound.expect("an answer") {
            let chain = kratos::error_chain(&error).to_string();
            assert!(chain.contains(nobodys.as_str()), "it is named: {chain}");
        }
    };
    tokio::join!(unknown, others, subscribed);
    stop(server).await;
}
