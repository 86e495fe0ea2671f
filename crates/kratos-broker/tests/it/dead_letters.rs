//! Messages that are given up: moved by the broker, or published to a topic.

mod away;

use std::time::Duration;

use kratos::Server as _;
use kratos_broker::{
    AnyError, Attempt, DeadLetter, Delivery, Disposition, Json, Message, Policy, Publisher, Router,
    Server, Subscription,
    driver::Capabilities,
    memory::Broker,
    testing::{Started, start_context},
};
use tokio::time::sleep;

use crate::support::{
    Log, failed, publish, publish_numbers, secs, server, subscription, text, until,
};

const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// Everything that is published to `topic`, as a group of its own sees it.
async fn watch(broker: &Broker, topic: &str) -> (Log<Delivery>, Started) {
    let seen = Log::default();
    let handler = {
        let seen = seen.clone();
        move |delivery: Delivery| {
            let seen = seen.clone();
            async move { seen.add(delivery) }
        }
    };
    let router = Router::new().subscribe(topic, "watcher", handler);
    (seen, Started::start(server(broker, router)).await)
}

fn to_topic() -> Subscription {
    subscription().dead_letter(DeadLetter::topic("dead"))
}

/// One attempt, and leases that end soon.
fn held_for_a_minute() -> Subscription {
    to_topic()
        .invisible_duration(secs(10))
        .max_hold(secs(60))
        .policy(Policy::new().max_attempts(1))
}

fn header<'d>(delivery: &'d Delivery, name: &str) -> &'d str {
    delivery.headers().get(name).unwrap_or("none")
}

#[tokio::test(start_paused = true)]
async fn a_letter_counts_the_attempts_made_here_and_those_of_the_broker() {
    let broker = Broker::new();
    let (dead, watcher) = watch(&broker, "dead").await;
    let tries = Log::default();
    let handler = {
        let tries = tries.clone();
        move |Attempt(attempt): Attempt| {
            let tries = tries.clone();
            async move {
                tries.add(attempt);
                failed()
            }
        }
    };
    let policy = Policy::new().max_attempts(5).in_process(2);
    let router = Router::new().subscribe_with(to_topic().policy(policy), handler);
    let started = Started::start(server(&broker, router)).await;
    publish_numbers(&broker, 1).await;
    until("it is published", || dead.len() == 1).await;
    assert_eq!(tries.all(), [1, 2, 3, 4, 5]);
    assert_eq!(header(&dead.all()[0], DeadLetter::ATTEMPTS), "5");
    started.stop(secs(5)).await.unwrap();
    watcher.stop(secs(5)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_topic_gets_the_message_as_it_was_with_the_reason() {
    let broker = Broker::new();
    let (dead, watcher) = watch(&broker, "dead").await;
    let policy = Policy::new().max_attempts(2);
    let router = Router::new().subscribe_with(to_topic().policy(policy), || async { failed() });
    let server = server(&broker, router);
    let counters = server.counters();
    let started = Started::start(server).await;
    let message = Message::new("t", &b"\xff raw"[..])
        .tag("eu")
        .key("k1")
        .key("k2")
        .header("shop", "12")
        .header("traceparent", TRACE);
    let id = publish(&broker, message).await;
    until("it is published", || dead.len() == 1).await;
    until("it is acknowledged", || broker.backlog("t", "g") == 0).await;
    let letter = &dead.all()[0];
    assert_eq!(letter.body(), &b"\xff raw"[..]);
    assert_eq!(
        (letter.tag(), letter.keys()),
        (Some("eu"), &["k1".to_owned(), "k2".to_owned()][..])
    );
    for (name, value) in [
        ("shop", "12"),
        ("traceparent", TRACE),
        ("x-dead-letter-reason", "exhausted"),
        (
            "x-dead-letter-error-type",
            "kratos_broker::handler::failure::AnyError",
        ),
        ("x-dead-letter-error", "on purpose"),
        ("x-dead-letter-attempts", "2"),
        ("x-dead-letter-origin-topic", "t"),
        ("x-dead-letter-message-id", &id),
    ] {
        assert_eq!(header(letter, name), value, "{name}");
    }
    assert!(
        broker.dead_letters("g").is_empty(),
        "the broker moved nothing"
    );
    let stats = counters.stats();
    assert_eq!((stats.dead_lettered, stats.poisoned), (1, 0));
    started.stop(secs(5)).await.unwrap();
    watcher.stop(secs(5)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn poison_and_what_does_not_decode_go_at_once() {
    let broker = Broker::new();
    let (dead, watcher) = watch(&broker, "dead").await;
    async fn number(Json(number): Json<u32>) -> Result<(), AnyError> {
        Err(AnyError::msg(format!("{number} is odd")))
    }
    let subscription = to_topic().classify(|_: &AnyError| Disposition::Poison);
    let server = server(&broker, Router::new().subscribe_with(subscription, number));
    let counters = server.counters();
    let started = Started::start(server).await;
    publish(&broker, Message::new("t", "not a number")).await;
    publish(&broker, Message::new("t", "7")).await;
    until("both are published", || dead.len() == 2).await;
    let mut types = Vec::new();
    for letter in dead.all() {
        assert_eq!(header(&letter, DeadLetter::REASON), "poison");
        assert_eq!(header(&letter, DeadLetter::ATTEMPTS), "1");
        types.push(header(&letter, DeadLetter::ERROR_TYPE).to_owned());
    }
    types.sort();
    assert_eq!(
        types,
        ["decode", "kratos_broker::handler::failure::AnyError"]
    );
    until("both are acknowledged", || broker.backlog("t", "g") == 0).await;
    let stats = counters.stats();
    assert_eq!((stats.dead_lettered, stats.poisoned), (2, 2));
    started.stop(secs(5)).await.unwrap();
    watcher.stop(secs(5)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn in_a_batch_that_is_one_unit_order_goes_on_behind_the_dead_letter() {
    let broker = Broker::new().batches_are_units(1);
    let done = Log::default();
    let handler = {
        let done = done.clone();
        move |delivery: Delivery| {
            let done = done.clone();
            async move {
                if delivery.body() == "a1" {
                    return failed();
                }
                done.add(text(&delivery));
                Ok(())
            }
        }
    };
    for n in 0..4 {
        for group in ["a", "b"] {
            publish(
                &broker,
                Message::new("t", format!("{group}{n}")).group(group),
            )
            .await;
        }
    }
    let subscription = Subscription::new("t", "g")
        .fifo()
        .invisible_duration(secs(10))
        .dead_letter(DeadLetter::topic("dead"));
    let server = server(&broker, Router::new().subscribe_with(subscription, handler));
    let counters = server.counters();
    let started = Started::start(server).await;
    broker.fail_publishes(6);
    until("b is done, a0 is done", || done.len() == 5).await;
    sleep(secs(5)).await;
    assert_eq!(
        done.len(),
        5,
        "a waits for the dead letter: {:?}",
        done.all()
    );
    until("all are settled", || broker.backlog("t", "g") == 0).await;
    let of_a: Vec<_> = done
        .all()
        .into_iter()
        .filter(|n| n.starts_with('a'))
        .collect();
    assert_eq!(of_a, ["a0", "a2", "a3"]);
    started.stop(secs(5)).await.unwrap();
    let stats = counters.stats();
    assert_eq!(
        (stats.received, stats.repeated, stats.dead_lettered),
        (8, 0, 1)
    );
}

#[tokio::test(start_paused = true)]
async fn the_reason_is_counted_where_the_broker_moves_it_too() {
    let broker = Broker::new();
    let bad = |delivery: Delivery| async move {
        let poison = delivery.body() == "poison";
        Err::<(), _>(kratos_broker::Rejection::poison("no")).map_err(|rejection| {
            if poison {
                AnyError::from(rejection)
            } else {
                AnyError::msg("no")
            }
        })
    };
    let subscription = subscription().policy(Policy::new().max_attempts(1));
    let server = server(&broker, Router::new().subscribe_with(subscription, bad));
    let counters = server.counters();
    let started = Started::start(server).await;
    for body in ["poison", "other"] {
        publish(&broker, Message::new("t", body)).await;
    }
    until("both are dead", || broker.dead_letters("g").len() == 2).await;
    let stats = counters.stats();
    assert_eq!((stats.dead_lettered, stats.poisoned), (2, 1));
    started.stop(secs(5)).await.unwrap();
}

#[tokio::test]
async fn bind_refuses_what_cannot_be() {
    let poor = Broker::new().with_capabilities(Capabilities::none());
    let bind = async |subscription: Subscription| {
        let router = Router::new().subscribe_with(subscription, || async {});
        let bound = Server::new(poor.clone())
            .routes(router)
            .bind(start_context());
        bound.await.map(drop).map_err(|error| error.to_string())
    };
    let native = bind(Subscription::new("t", "g")).await.unwrap_err();
    assert!(
        native.contains("cannot dead-letter messages (name a topic"),
        "{native}"
    );
    bind(to_topic()).await.unwrap();
    for topic in ["t", ""] {
        let own = Subscription::new("t", "g").dead_letter(DeadLetter::topic(topic));
        let error = bind(own).await.unwrap_err();
        assert!(error.contains("another topic"), "{error}");
    }
}

/// A dead letter that its group cannot handle either goes on to the next topic.
#[tokio::test(start_paused = true)]
async fn a_dead_letter_of_a_dead_letter_tells_of_the_newest_failure() {
    let broker = Broker::new();
    let (last, watcher) = watch(&broker, "last").await;
    let once = Policy::new().max_attempts(1);
    let second = Subscription::new("dead", "g2")
        .policy(once.clone())
        .dead_letter(DeadLetter::topic("last"));
    let router = Router::new()
        .subscribe_with(to_topic().policy(once), || async { failed() })
        .subscribe_with(second, || async { failed() });
    let started = Started::start(server(&broker, router)).await;
    Publisher::new(broker.clone())
        .publish(Message::new("t", "x"))
        .await
        .unwrap();
    until("it is there", || last.len() == 1).await;
    let letter = &last.all()[0];
    assert_eq!(header(letter, DeadLetter::ORIGIN_TOPIC), "dead");
    assert_eq!(
        letter
            .headers()
            .iter()
            .filter(|(n, _)| n.starts_with("x-dead"))
            .count(),
        6
    );
    started.stop(Duration::from_secs(5)).await.unwrap();
    watcher.stop(secs(5)).await.unwrap();
}

/// T6 and T8, and the reason in the span: the send of the dead letter is a child of the attempt
/// that failed, linked to where the message came from; of an unsampled trace there is none.
#[tokio::test(start_paused = true)]
async fn the_span_of_the_last_attempt_tells_why_and_an_unsampled_trace_stays_so() {
    const UNSAMPLED: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";
    for topic in ["of-span", "dead-of-span"] {
        kratos_broker::testing::trace::spans(topic);
    }
    let exporter = kratos_broker::testing::trace::spans("of-span");
    let broker = Broker::new();
    let (dead, watcher) = watch(&broker, "dead-of-span").await;
    let subscription = Subscription::new("of-span", "g")
        .policy(Policy::new().max_attempts(2))
        .dead_letter(DeadLetter::topic("dead-of-span"));
    let router = Router::new().subscribe_with(subscription, || async { failed() });
    let started = Started::start(server(&broker, router)).await;
    publish(
        &broker,
        Message::new("of-span", "x").header("traceparent", UNSAMPLED),
    )
    .await;
    publish(&broker, Message::new("of-span", "sampled")).await;
    until("both are published", || dead.len() == 2).await;
    started.stop(secs(5)).await.unwrap();
    watcher.stop(secs(5)).await.unwrap();

    let spans = exporter.get_finished_spans().unwrap();
    let named = |name: &str| {
        spans
            .iter()
            .filter(|span| span.name == name)
            .collect::<Vec<_>>()
    };
    let attempts = named("process of-span");
    let attribute = |at: usize, name: &str| {
        let attributes = &attempts[at].attributes;
        let found = attributes.iter().find(|pair| pair.key.as_str() == name);
        found.map(|pair| pair.value.to_string())
    };
    assert_eq!(attempts.len(), 2);
    assert_eq!(attribute(0, "dead_letter.reason"), None);
    assert_eq!(
        attribute(1, "dead_letter.reason").as_deref(),
        Some("exhausted")
    );
    assert_eq!(
        attribute(1, "dead_letter.topic").as_deref(),
        Some("dead-of-span")
    );
    assert!(attribute(1, "error.type").is_some_and(|of| of.ends_with("AnyError")));
    let sent = named("send dead-of-span");
    assert_eq!(sent.len(), 1, "one trace is sampled");
    assert_eq!(sent[0].parent_span_id, attempts[1].span_context.span_id());
    let carried = |letter: &Delivery| header(letter, "traceparent").to_owned();
    let of_body = |body: &str| dead.all().into_iter().find(|letter| letter.body() == body);
    assert_eq!(carried(&of_body("x").unwrap()), UNSAMPLED);
    let origin = sent[0].links[0].span_context.span_id().to_string();
    let traceparent = carried(&of_body("sampled").unwrap());
    assert!(traceparent.contains(&origin), "{traceparent}: {origin}");
}
