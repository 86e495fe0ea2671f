//! R: failures that end: capped, fatal, or over their time.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::time::{Instant, sleep};

use super::{
    Harness, eventually,
    place::{Place, prime},
    trace::{attribute, named, spans},
    witness::{Seen, publish, serve, serve_seen, stop},
};
use crate::{AnyError, Backoff, DeadLetter, Deadline, Delivery, Disposition, Message, Policy};

/// R2 in mode Native: a message that always fails is tried as often as the policy says, then it is a
/// dead letter: once, as it was published. The spans of its attempts say what failed.
///
/// # Panics
///
/// It is tried more or less often, or there is not exactly one dead letter.
pub async fn r2_attempts_are_capped_and_the_dead_letter_comes_once<H: Harness>(h: &H) {
    const ATTEMPTS: u32 = 3;
    let place = Place::new(h, "r2").await;
    let exporter = spans(&place.topic);
    prime(h, &place.topic, &place.group).await;
    let seen = Seen::default();
    let failing = {
        let seen = seen.clone();
        move |delivery: Delivery| {
            seen.add(delivery);
            std::future::ready(Err::<(), _>(AnyError::msg("it always fails")))
        }
    };
    let policy = Policy::new()
        .max_attempts(ATTEMPTS)
        .backoff(Backoff::fixed(Duration::from_secs(1)));
    let (server, counters) = serve(h, place.subscription(h).policy(policy), failing).await;
    let message = Message::new(&place.topic, "body").header("kept", "yes");
    let id = publish(h, message).await;
    let bounds = h.bounds();
    let within = bounds.deliver + ATTEMPTS * bounds.redelivery_late;
    eventually("it is given up", within, || {
        counters.stats().dead_lettered == 1
    })
    .await;
    let until = Instant::now() + bounds.deliver;
    while h.dead_letters(&place.group).await.is_empty() {
        assert!(Instant::now() < until, "no dead letter");
        sleep(Duration::from_millis(50)).await;
    }
    // A second one, or another attempt, would come by then.
    sleep(Duration::from_secs(1) + bounds.redelivery_late.min(Duration::from_secs(3))).await;
    stop(server).await;

    let attempts: Vec<_> = seen.all().iter().map(Delivery::attempt).collect();
    assert_eq!(attempts, (1..=ATTEMPTS).collect::<Vec<_>>());
    let dead = h.dead_letters(&place.group).await;
    let [dead] = &*dead else {
        panic!("not one dead letter: {dead:?}")
    };
    assert_eq!((dead.id(), &**dead.body()), (&id, b"body".as_slice()));
    assert_eq!(dead.headers().get("kept"), Some("yes"));
    let stats = counters.stats();
    assert_eq!(
        (stats.failed, stats.retried, stats.dead_lettered),
        (u64::from(ATTEMPTS), u64::from(ATTEMPTS) - 1, 1)
    );
    let spans = named(&exporter, &format!("process {}", place.topic));
    assert_eq!(spans.len(), attempts.len(), "a span for each attempt");
    for span in spans {
        let what = attribute(&span, "error.type").expect("the error's type");
        assert!(what.contains("AnyError"), "{what}");
    }
}

/// R2 and T8 in mode Topic: a message that is given up is published to the topic, with the reason, the
/// error's type, the attempts, where it came from and its id; its trace and everything else stay. The
/// broker's own dead letters stay empty.
///
/// # Panics
///
/// It does not come, or says something else.
pub async fn r2_t8_a_dead_letter_topic_is_told_why_and_keeps_the_trace<H: Harness>(h: &H) {
    async fn fail(_: Delivery) -> Result<(), AnyError> {
        Err(AnyError::msg("it always fails"))
    }
    let place = Place::new(h, "r2-topic").await;
    prime(h, &place.topic, &place.group).await;
    let dead = Place::new(h, "r2-dead").await;
    prime(h, &dead.topic, &dead.group).await;
    let letters = Seen::default();
    let reader = serve_seen(h, dead.subscription(h), &letters).await;
    let policy = Policy::new()
        .max_attempts(2)
        .backoff(Backoff::fixed(Duration::from_secs(1)));
    let subscription = place
        .subscription(h)
        .policy(policy)
        .dead_letter(DeadLetter::topic(&dead.topic));
    let (server, counters) = serve(h, subscription, fail).await;
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let message = Message::new(&place.topic, "body")
        .key("k")
        .header("kept", "yes")
        .header("traceparent", trace);
    let id = publish(h, message).await;
    let within = h.bounds().deliver + h.bounds().redelivery_late;
    eventually("it comes", within, || letters.count() >= 1).await;
    eventually("it is settled", within, || counters.stats().confirmed >= 2).await;
    stop(server).await;
    stop(reader).await;
    let letter = letters.all().remove(0);
    assert_eq!(*letter.body(), "body");
    assert_eq!(letter.keys(), ["k"]);
    let header = |name| letter.headers().get(name).unwrap_or_default();
    let told = [
        ("kept", "yes"),
        ("traceparent", trace),
        (DeadLetter::REASON, "exhausted"),
        (DeadLetter::ATTEMPTS, "2"),
        (DeadLetter::ORIGIN_TOPIC, place.topic.as_str()),
        (DeadLetter::MESSAGE_ID, id.as_str()),
        (DeadLetter::ERROR, "it always fails"),
    ];
    assert_eq!(told.map(|(name, _)| (name, header(name))), told);
    assert!(header(DeadLetter::ERROR_TYPE).contains("AnyError"));
    assert_eq!(counters.stats().dead_lettered, 1);
    assert!(h.dead_letters(&place.group).await.is_empty());
}

/// R5: a fatal failure ends the server with an error that names the message, which is not lost: the
/// next server gets it.
///
/// # Panics
///
/// The server goes on, ends without an error, or the message is lost.
pub async fn r5_a_fatal_failure_ends_the_server_and_loses_nothing<H: Harness>(h: &H) {
    async fn fatal(_: Delivery) -> Result<(), AnyError> {
        Err(AnyError::msg("the disk is gone"))
    }
    let place = Place::new(h, "r5").await;
    prime(h, &place.topic, &place.group).await;
    let subscription = place
        .subscription(h)
        .classify(|_: &AnyError| Disposition::Fatal);
    let (server, _) = serve(h, subscription, fatal).await;
    let id = publish(h, Message::new(&place.topic, "x")).await;
    let error = server
        .ended(h.bounds().deliver)
        .await
        .expect_err("a fatal failure");
    let chain = kratos::error_chain(&error).to_string();
    let told = [id.as_str(), place.topic.as_str(), "the disk is gone"];
    assert!(told.iter().all(|word| chain.contains(word)), "{chain}");

    let seen = Seen::default();
    let server = serve_seen(h, place.subscription(h), &seen).await;
    let within = h.bounds().deliver + h.invisible() + h.bounds().redelivery_late;
    eventually("the next server has it", within, || seen.count() == 1).await;
    stop(server).await;
    assert_eq!(*seen.all()[0].id(), id);
    assert!(h.dead_letters(&place.group).await.is_empty());
}

/// R6: every attempt has a deadline of its own, as far away as that of the first.
///
/// # Panics
///
/// A retry has less time.
pub async fn r6_a_retry_gets_a_fresh_deadline<H: Harness>(h: &H) {
    const LIMIT: Duration = Duration::from_secs(2);
    let place = Place::new(h, "r6").await;
    prime(h, &place.topic, &place.group).await;
    let left = Arc::new(Mutex::new(Vec::new()));
    let tries = Arc::new(AtomicU32::new(0));
    let handler = {
        let left = left.clone();
        move |Deadline(deadline): Deadline| {
            left.lock().unwrap().push(deadline - Instant::now());
            let first = tries.fetch_add(1, Relaxed) == 0;
            async move {
                if first {
                    // Over its time: a failure.
                    std::future::pending::<()>().await;
                }
            }
        }
    };
    let subscription = place.subscription(h).handler_timeout(LIMIT);
    let (server, counters) = serve(h, subscription, handler).await;
    publish(h, Message::new(&place.topic, "x")).await;
    let within = h.bounds().deliver + h.bounds().redelivery_late;
    eventually("it is done", within, || counters.stats().handled == 1).await;
    stop(server).await;
    let left = left.lock().unwrap();
    assert_eq!(left.len(), 2);
    for left in &*left {
        assert!((LIMIT / 2..=LIMIT).contains(left), "{left:?} of {LIMIT:?}");
    }
    assert_eq!(counters.stats().failed, 1);
}
