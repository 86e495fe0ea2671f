//! Handlers of several messages at once.

use std::time::Duration;

use kratos_broker::{
    AnyError, Backoff, Batch, BatchOutcome, BatchSettings, Bytes, Cancelled, Deadline, Deliveries,
    Delivery, Disposition, Extension, HandlerError, Json, Message, Order, Policy, RateLimit,
    Rejection, Router, State, Subscription, memory::Broker, testing::Started,
};
use tokio::time::{Instant, sleep};
use tower::{timeout::TimeoutLayer, util::MapRequestLayer};

use crate::{
    failures::OnDrop,
    support::{Log, millis, publish, publish_numbers, secs, server, subscription, text, until},
};

/// The bodies of each batch.
type Batches = Log<Vec<String>>;

fn bodies(batch: &Batch<Delivery>) -> Vec<String> {
    batch.iter().map(|item| text(&item.delivery)).collect()
}

/// One batch at a time.
fn one() -> Subscription {
    subscription().concurrency(1)
}

async fn note(State(seen): State<Batches>, batch: Batch<Delivery>) {
    seen.add(bodies(&batch));
}

fn sizes(seen: &Batches) -> Vec<usize> {
    seen.all().iter().map(Vec::len).collect()
}

async fn done(broker: &Broker) {
    until("all are settled", || broker.backlog("t", "g") == 0).await;
}

// === what is in a batch ===

#[tokio::test(start_paused = true)]
async fn a_batch_takes_what_is_there_up_to_its_limits() {
    let (broker, seen) = (Broker::new(), Batches::default());
    for body in [
        "a",
        "b",
        "c",
        "d",
        "e",
        "long one",
        "f",
        "longer than all",
        "g",
    ] {
        publish(&broker, Message::new("t", body)).await;
    }
    let settings = BatchSettings::new(4).max_bytes(9);
    let router = Router::new()
        .subscribe_batch(one(), settings, note)
        .with_state(seen.clone());
    let begin = Instant::now();
    let started = Started::start(server(&broker, router)).await;
    done(&broker).await;
    assert!(begin.elapsed() < secs(1), "waits for nothing");
    let expected = [
        vec!["a", "b", "c", "d"],
        vec!["e", "long one"],
        vec!["f"],
        vec!["longer than all"],
        vec!["g"],
    ];
    assert_eq!(seen.all(), expected);
    started.stop(secs(5)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn idle_lanes_fill_one_batch_together_for_as_long_as_it_lingers() {
    let (broker, seen) = (Broker::new(), Batches::default());
    let settings = BatchSettings::new(12).linger(secs(1));
    let router = Router::new()
        .subscribe_batch(subscription().concurrency(8), settings, note)
        .with_state(seen.clone());
    let started = Started::start(server(&broker, router)).await;
    for _ in 0..20 {
        publish_numbers(&broker, 1).await;
        sleep(millis(20)).await;
    }
    done(&broker).await;
    assert_eq!(
        sizes(&seen),
        [12, 8],
        "full at once, the rest after its time"
    );
    started.stop(secs(5)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_stop_ends_the_wait_of_a_batch() {
    let (broker, seen) = (Broker::new(), Batches::default());
    let settings = BatchSettings::new(100).linger(secs(50));
    let router = Router::new()
        .subscribe_batch(one(), settings, note)
        .with_state(seen.clone());
    let started = Started::start(server(&broker, router)).await;
    publish_numbers(&broker, 3).await;
    until("they are held", || broker.held("t", "g") == 3).await;
    let begin = Instant::now();
    started.stop(secs(20)).await.unwrap();
    assert!(begin.elapsed() < secs(3), "after {:?}", begin.elapsed());
    assert_eq!((sizes(&seen), broker.held("t", "g")), (vec![3], 0));
}

#[tokio::test(start_paused = true)]
async fn arguments_and_layers_belong_to_the_whole_batch() {
    async fn slow(
        State(log): State<Log<(bool, u8, usize)>>,
        Deadline(deadline): Deadline,
        Extension(number): Extension<u8>,
        batch: Batch<Bytes>,
    ) -> Result<(), AnyError> {
        let in_time = deadline - Instant::now() == secs(30);
        log.add((in_time, number, batch.len()));
        let once = batch.iter().all(|item| item.delivery.attempt() == 1);
        if once {
            sleep(secs(20)).await;
        }
        Ok(())
    }
    let (broker, log) = (Broker::new(), Log::default());
    let number = MapRequestLayer::new(|mut batch: Deliveries| {
        let count = u8::try_from(batch.len()).unwrap();
        batch.insert_extension(count);
        batch
    });
    let router = Router::new()
        .layer(TimeoutLayer::new(secs(10)))
        .layer(number)
        .subscribe_batch(one().handler_timeout(secs(30)), BatchSettings::new(8), slow)
        .with_state(log.clone());
    publish_numbers(&broker, 3).await;
    let router = Router::new().merge(router);
    let started = Started::start(server(&broker, router)).await;
    done(&broker).await;
    assert_eq!(
        log.all(),
        [(true, 3, 3); 2],
        "tower's time limit failed all"
    );
    started.stop(secs(5)).await.unwrap();
}

// === outcomes ===

/// Fails what is in the list at its first attempt.
#[derive(Clone)]
struct FailOnce {
    failing: &'static [&'static str],
    seen: Log<Vec<(String, u32)>>,
}

impl FailOnce {
    fn new(failing: &'static [&'static str]) -> Self {
        Self {
            failing,
            seen: Log::default(),
        }
    }

    async fn handle(State(this): State<Self>, batch: Batch<Delivery>) -> BatchOutcome {
        let seen = batch.iter().map(|item| &item.delivery);
        let seen = seen.map(|delivery| (text(delivery), delivery.attempt()));
        this.seen.add(seen.collect());
        let mut outcome = BatchOutcome::new();
        for (index, item) in batch.into_iter().enumerate() {
            let failing = this.failing.contains(&&*text(&item.body));
            if failing && item.delivery.attempt() == 1 {
                outcome.fail(index, AnyError::msg("on purpose"));
            }
        }
        outcome.rest_ok()
    }

    fn seen(&self) -> Vec<Vec<String>> {
        let show = |(body, attempt): (String, u32)| format!("{body}/{attempt}");
        let batches = self.seen.all().into_iter();
        batches
            .map(|batch| batch.into_iter().map(show).collect())
            .collect()
    }
}

#[tokio::test(start_paused = true)]
async fn d20_a_batch_that_failed_in_part_redelivers_only_the_failed() {
    let broker = Broker::new();
    let handler = FailOnce::new(&["1", "4"]);
    publish_numbers(&broker, 6).await;
    let router = Router::new()
        .subscribe_batch(one(), BatchSettings::new(10), FailOnce::handle)
        .with_state(handler.clone());
    let server = server(&broker, router);
    let counters = server.counters();
    let started = Started::start(server).await;
    done(&broker).await;
    let expected = [
        vec!["0/1", "1/1", "2/1", "3/1", "4/1", "5/1"],
        vec!["1/2", "4/2"],
    ];
    assert_eq!(handler.seen(), expected);
    started.stop(secs(5)).await.unwrap();
    let stats = counters.stats();
    assert_eq!((stats.handled, stats.failed, stats.retried), (6, 2, 2));
    assert_eq!((stats.repeated, stats.confirmed), (0, 8));
}

#[tokio::test(start_paused = true)]
async fn nothing_is_acknowledged_that_the_outcome_does_not_name() {
    #[derive(Clone, Copy)]
    enum Says {
        OkOf(&'static [usize]),
        Results(usize),
        Rest,
    }
    async fn say(State(says): State<Says>, batch: Batch<Delivery>) -> BatchOutcome {
        let again = batch.iter().any(|item| item.delivery.attempt() > 1);
        match says {
            _ if again => BatchOutcome::new().rest_ok(),
            Says::OkOf(indexes) => {
                let mut outcome = BatchOutcome::new();
                indexes.iter().for_each(|index| outcome.ok(*index));
                outcome
            }
            Says::Results(count) => (0..count).map(|_| Ok(())).collect(),
            Says::Rest => {
                let mut outcome = BatchOutcome::new();
                outcome.ok(0);
                outcome.fail(0, AnyError::msg("a failure is the last word"));
                outcome.ok(0);
                outcome.set(1, "7".parse::<u8>().map(|_| ()));
                outcome.rest_failed(AnyError::msg("the others"))
            }
        }
    }
    for (says, handled) in [
        (Says::OkOf(&[]), 0),
        (Says::OkOf(&[0, 2]), 2),
        (Says::OkOf(&[0, 1, 2, 3]), 4),
        (Says::OkOf(&[0, 1, 2, 3, 4]), 0),
        (Says::OkOf(&[usize::MAX]), 0),
        (Says::Results(3), 3),
        (Says::Results(5), 0),
        (Says::Rest, 1),
    ] {
        let broker = Broker::new();
        publish_numbers(&broker, 4).await;
        let router = Router::new()
            .subscribe_batch(one(), BatchSettings::new(4), say)
            .with_state(says);
        let server = server(&broker, router);
        let counters = server.counters();
        let started = Started::start(server).await;
        until("the first attempt is over", || {
            let stats = counters.stats();
            stats.handled + stats.failed == 4
        })
        .await;
        assert_eq!(counters.stats().handled, handled);
        done(&broker).await;
        started.stop(secs(5)).await.unwrap();
    }
}

#[derive(Debug)]
struct Refused(Disposition);

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("refused")
    }
}

impl HandlerError for Refused {
    fn disposition(&self) -> Disposition {
        self.0
    }
}

#[tokio::test(start_paused = true)]
async fn each_failed_message_follows_its_own_error() {
    async fn judge(
        State(seen): State<Batches>,
        batch: Batch<Delivery>,
    ) -> Result<BatchOutcome<Refused>, AnyError> {
        seen.add(bodies(&batch));
        let mut outcome = BatchOutcome::new();
        for (index, item) in batch.iter().enumerate() {
            match (&*text(&item.body), item.delivery.attempt()) {
                ("poison", _) => outcome.fail(index, Refused(Disposition::Poison)),
                ("later", 1) => outcome.fail(index, Refused(Disposition::RetryAfter(secs(70)))),
                ("classified", _) => outcome.fail(index, Refused(Disposition::Retry)),
                _ => outcome.ok(index),
            }
        }
        Ok(outcome)
    }
    let (broker, seen) = (Broker::new(), Batches::default());
    for body in ["fine", "poison", "later"] {
        publish(&broker, Message::new("t", body)).await;
    }
    let router = Router::new()
        .subscribe_batch(one(), BatchSettings::new(10), judge)
        .with_state(seen.clone());
    let begin = Instant::now();
    let started = Started::start(server(&broker, router)).await;
    done(&broker).await;
    assert!(begin.elapsed() >= secs(70));
    assert_eq!(seen.all(), [vec!["fine", "poison", "later"], vec!["later"]]);
    let dead = broker.dead_letters("g");
    assert_eq!(dead.iter().map(text).collect::<Vec<_>>(), ["poison"]);
    started.stop(secs(5)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn classify_decides_for_batches_too() {
    async fn fail(_: Batch<Delivery>) -> Result<(), AnyError> {
        let _: u8 = "x".parse()?;
        Ok(())
    }
    let broker = Broker::new();
    publish_numbers(&broker, 3).await;
    let poison = |_: &std::num::ParseIntError| Disposition::Poison;
    let router =
        Router::new().subscribe_batch(one().classify(poison), BatchSettings::new(10), fail);
    let started = Started::start(server(&broker, router)).await;
    done(&broker).await;
    assert_eq!(broker.dead_letters("g").len(), 3);
    started.stop(secs(5)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_decoded_is_a_dead_letter_by_itself_whatever_becomes_of_the_batch() {
    async fn fail_once(State(seen): State<Log<Vec<u8>>>, batch: Batch<Json<u8>>) {
        seen.add(batch.iter().map(|item| item.body.0).collect());
        let first = batch.iter().any(|item| item.delivery.attempt() == 1);
        assert!(!first, "on purpose");
    }
    let (broker, seen) = (Broker::new(), Log::default());
    for body in ["1", "no number", "2", "300"] {
        publish(&broker, Message::new("t", body)).await;
    }
    let router = Router::new()
        .subscribe_batch(one(), BatchSettings::new(10), fail_once)
        .with_state(seen.clone());
    let started = Started::start(server(&broker, router)).await;
    done(&broker).await;
    assert_eq!(seen.all(), [[1, 2], [1, 2]]);
    let dead = broker.dead_letters("g");
    let dead: Vec<_> = dead.iter().map(|d| (text(d), d.attempt())).collect();
    assert_eq!(dead, [("no number".to_owned(), 1), ("300".to_owned(), 1)]);
    started.stop(secs(5)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_batch_in_which_nothing_can_be_decoded_never_reaches_the_handler() {
    async fn never(_: Batch<Json<u8>>) {
        panic!("called");
    }
    let broker = Broker::new();
    for body in ["x", "y"] {
        publish(&broker, Message::new("t", body)).await;
    }
    let router = Router::new().subscribe_batch(one(), BatchSettings::new(10), never);
    let started = Started::start(server(&broker, router)).await;
    done(&broker).await;
    assert!(broker.dead_letters("g").iter().all(|d| d.attempt() == 1));
    assert_eq!(broker.dead_letters("g").len(), 2);
    started.stop(secs(5)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_handler_may_look_at_what_cannot_be_decoded() {
    async fn look(
        State(seen): State<Log<Vec<Option<u8>>>>,
        batch: Batch<Result<Json<u8>, Rejection>>,
    ) -> BatchOutcome {
        let bodies = batch.iter().map(|item| &item.body);
        seen.add(
            bodies
                .map(|body| body.as_ref().ok().map(|json| json.0))
                .collect(),
        );
        BatchOutcome::new().rest_ok()
    }
    let (broker, seen) = (Broker::new(), Log::default());
    for body in ["1", "x"] {
        publish(&broker, Message::new("t", body)).await;
    }
    let router = Router::new()
        .subscribe_batch(one(), BatchSettings::new(10), look)
        .with_state(seen.clone());
    let started = Started::start(server(&broker, router)).await;
    done(&broker).await;
    assert_eq!(seen.all(), [[Some(1), None]]);
    assert!(broker.dead_letters("g").is_empty());
    started.stop(secs(5)).await.unwrap();
}

// === failures of the whole ===

#[tokio::test(start_paused = true)]
async fn no_message_is_dead_lettered_for_what_another_one_did() {
    async fn burst(State(done): State<Batches>, batch: Batch<Delivery>) -> Result<(), AnyError> {
        let bodies = bodies(&batch);
        for bad in &bodies {
            match &**bad {
                "panics" => panic!("on purpose"),
                "hangs" => std::future::pending().await,
                "fails" => return Err(AnyError::msg("on purpose")),
                _ => {}
            }
        }
        done.add(bodies);
        Ok(())
    }
    let (broker, handled) = (Broker::new(), Batches::default());
    for body in ["0", "panics", "1", "hangs", "2", "fails", "3"] {
        publish(&broker, Message::new("t", body)).await;
    }
    let policy = Policy::new()
        .max_attempts(3)
        .backoff(Backoff::fixed(secs(1)));
    let subscription = one().policy(policy).handler_timeout(secs(5));
    let router = Router::new()
        .subscribe_batch(subscription, BatchSettings::new(10), burst)
        .with_state(handled.clone());
    let started = Started::start(server(&broker, router)).await;
    done(&broker).await;
    let mut handled = handled.all().concat();
    handled.sort();
    assert_eq!(handled, ["0", "1", "2", "3"]);
    let mut dead: Vec<_> = broker.dead_letters("g").iter().map(text).collect();
    dead.sort();
    assert_eq!(dead, ["fails", "hangs", "panics"]);
    started.stop(secs(5)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn fatal_ends_the_server_and_keeps_every_message_that_is_not_done() {
    async fn refuse(batch: Batch<Delivery>) -> BatchOutcome<Refused> {
        let mut outcome = BatchOutcome::new();
        for (index, item) in batch.iter().enumerate() {
            match &*text(&item.body) {
                "2" => outcome.fail(index, Refused(Disposition::Fatal)),
                _ => outcome.ok(index),
            }
        }
        outcome
    }
    let broker = Broker::new();
    for n in 0..5 {
        publish(&broker, Message::new("t", n.to_string()).key("k")).await;
    }
    let subscription = one().order(Order::ByKey);
    let router = Router::new().subscribe_batch(subscription, BatchSettings::new(10), refuse);
    let started = Started::start(server(&broker, router)).await;
    let error = started.ended(secs(10)).await.unwrap_err();
    assert!(
        error.to_string().ends_with("failed fatally: refused"),
        "{error}"
    );
    let left = (broker.backlog("t", "g"), broker.held("t", "g"));
    assert_eq!(left, (3, 0), "it and what is behind it are handed back");
}

// === leases and stops ===

#[tokio::test(start_paused = true)]
async fn a_lost_lease_cancels_the_batch_and_the_others_run_again_unspent() {
    #[derive(Clone, Default)]
    struct Seen {
        batches: Log<Vec<(String, u32)>>,
        dropped: Log<bool>,
    }
    async fn hang_once(
        State(seen): State<Seen>,
        Cancelled(token): Cancelled,
        batch: Batch<Delivery>,
    ) {
        let all = batch.iter().map(|item| &item.delivery);
        let all = all.map(|delivery| (text(delivery), delivery.attempt()));
        seen.batches.add(all.collect());
        if seen.batches.len() == 1 {
            let _guard = OnDrop(seen.dropped, token);
            std::future::pending::<()>().await;
        }
    }
    let (broker, seen) = (Broker::new(), Seen::default());
    let mut ids = Vec::new();
    for body in ["a", "b", "c"] {
        ids.push(publish(&broker, Message::new("t", body)).await);
    }
    let router = Router::new()
        .subscribe_batch(one(), BatchSettings::new(10), hang_once)
        .with_state(seen.clone());
    let server = server(&broker, router);
    let counters = server.counters();
    let started = Started::start(server).await;
    until("it runs", || seen.batches.len() == 1).await;
    assert!(broker.lose_lease("g", &ids[1]));
    done(&broker).await;
    started.stop(secs(5)).await.unwrap();
    assert_eq!(seen.dropped.all(), [true], "the token fired first");
    let mut again: Vec<_> = seen.batches.all()[1..].concat();
    again.sort();
    let expected = [("a", 1), ("b", 2), ("c", 1)].map(|(body, n)| (body.to_owned(), n));
    assert_eq!(again, expected);
    let stats = counters.stats();
    assert_eq!((stats.leases_lost, stats.handled, stats.failed), (1, 3, 0));
    assert_eq!(
        (stats.confirmed, stats.refused),
        (3, 0),
        "one settlement each"
    );
}

#[tokio::test(start_paused = true)]
async fn messages_keep_their_leases_while_a_batch_fills_and_runs() {
    async fn long(State(seen): State<Log<Vec<u32>>>, batch: Batch<Delivery>) {
        sleep(secs(50)).await;
        seen.add(batch.iter().map(|item| item.delivery.attempt()).collect());
    }
    let (broker, seen) = (Broker::new(), Log::default());
    publish_numbers(&broker, 3).await;
    let settings = BatchSettings::new(10).linger(secs(45));
    let router = Router::new()
        .subscribe_batch(one().invisible_duration(secs(10)), settings, long)
        .with_state(seen.clone());
    let started = Started::start(server(&broker, router)).await;
    done(&broker).await;
    assert_eq!(seen.all(), [[1, 1, 1]], "once each");
    started.stop(secs(5)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_lost_lease_of_a_unit_ends_all_behind_it_and_what_is_in_front_runs_again() {
    async fn hang_once(State(seen): State<Batches>, batch: Batch<Delivery>) {
        seen.add(bodies(&batch));
        if seen.len() == 1 {
            std::future::pending::<()>().await;
        }
    }
    let (broker, seen) = (Broker::new().batches_are_units(1), Batches::default());
    let mut ids = Vec::new();
    for body in ["a0", "b0", "a1", "b1", "a2", "b2"] {
        let message = Message::new("t", body).group(&body[..1]);
        ids.push(publish(&broker, message).await);
    }
    let router = Router::new()
        .subscribe_batch(fifo(), BatchSettings::new(10), hang_once)
        .with_state(seen.clone());
    let server = server(&broker, router);
    let counters = server.counters();
    let started = Started::start(server).await;
    until("it runs", || seen.len() == 1).await;
    assert!(broker.lose_lease("g", &ids[2]));
    done(&broker).await;
    started.stop(secs(5)).await.unwrap();
    let again: Vec<_> = seen.all()[1..].concat();
    for group in ["a", "b"] {
        let of: Vec<_> = again
            .iter()
            .filter(|body| body.starts_with(group))
            .collect();
        let wanted: Vec<_> = (0..3).map(|n| format!("{group}{n}")).collect();
        assert_eq!(of, wanted.iter().collect::<Vec<_>>(), "{again:?}");
    }
    let mut first = seen.all()[1].clone();
    first.sort();
    assert_eq!(first, ["a0", "b0"], "what is not lost runs again at once");
    let stats = counters.stats();
    assert_eq!((stats.handled, stats.failed, stats.refused), (6, 0, 0));
}

async fn slowly(State(seen): State<Batches>, batch: Batch<Delivery>) {
    sleep(secs(2)).await;
    seen.add(bodies(&batch));
}

#[tokio::test(start_paused = true)]
async fn a_stop_finishes_the_batches_that_run_and_hands_back_the_rest() {
    let (broker, seen) = (Broker::new(), Batches::default());
    publish_numbers(&broker, 30).await;
    let router = Router::new()
        .subscribe_batch(subscription().concurrency(2), BatchSettings::new(5), slowly)
        .with_state(seen.clone());
    let server = server(&broker, router);
    let counters = server.counters();
    let started = Started::start(server).await;
    until("they are held", || broker.held("t", "g") == 30).await;
    started.stop(secs(20)).await.unwrap();
    assert_eq!(sizes(&seen), [5, 5]);
    assert_eq!((broker.backlog("t", "g"), broker.held("t", "g")), (20, 0));
    let stats = counters.stats();
    assert_eq!(
        (stats.handled, stats.handed_back, stats.failed),
        (10, 20, 0)
    );
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_is_cut_off_by_the_stop_has_not_failed_and_is_reported() {
    async fn hang(_: Batch<Delivery>) {
        std::future::pending().await
    }
    let broker = Broker::new();
    publish_numbers(&broker, 5).await;
    let router = Router::new().subscribe_batch(one(), BatchSettings::new(5), hang);
    let server = server(&broker, router);
    let counters = server.counters();
    let started = Started::start(server).await;
    until("they are held", || broker.held("t", "g") == 5).await;
    let error = started.stop(secs(10)).await.unwrap_err();
    assert_eq!(error.abandoned_ids().len(), 5);
    assert_eq!(counters.stats().failed, 0);
    assert_eq!((broker.backlog("t", "g"), broker.held("t", "g")), (5, 0));
}

// === order ===

fn fifo() -> Subscription {
    let policy = Policy::ordered().backoff(Backoff::fixed(secs(2)));
    Subscription::new("t", "g")
        .fifo()
        .concurrency(1)
        .ordered_policy(policy)
}

/// Publishes `a0 b0 a1 b1 ..`: message groups, or keys, a and b.
async fn publish_two(broker: &Broker, each: usize, of: fn(Message, &str) -> Message) {
    for n in 0..each {
        for group in ["a", "b"] {
            publish(broker, of(Message::new("t", format!("{group}{n}")), group)).await;
        }
    }
}

/// The batches again, and what was done: of one key in order, first times only.
fn assert_order(handler: &FailOnce, group: &str, each: usize) {
    let mut settled = Vec::new();
    for batch in handler.seen.all() {
        let of = batch.iter().filter(|(body, _)| body.starts_with(group));
        // What stands behind a failed one counts only when it comes again.
        let failing =
            |(body, attempt): &&(String, u32)| handler.failing.contains(&&**body) && *attempt == 1;
        settled.extend(of.take_while(|m| !failing(m)).map(|(body, _)| body.clone()));
    }
    let expected: Vec<_> = (0..each).map(|n| format!("{group}{n}")).collect();
    assert_eq!(settled, expected);
}

#[tokio::test(start_paused = true)]
async fn behind_a_failed_message_of_a_key_nothing_is_settled() {
    let by_group: fn(Message, &str) -> Message = |message, name| message.group(name);
    let by_key: fn(Message, &str) -> Message = |message, name| message.key(name);
    for (subscription, of) in [(fifo(), by_group), (fifo_less(), by_key)] {
        let broker = Broker::new().batches_are_units(1);
        let handler = FailOnce::new(&["a1", "b0", "b2"]);
        publish_two(&broker, 4, of).await;
        let router = Router::new()
            .subscribe_batch(subscription, BatchSettings::new(20), FailOnce::handle)
            .with_state(handler.clone());
        let server = server(&broker, router);
        let counters = server.counters();
        let started = Started::start(server).await;
        done(&broker).await;
        started.stop(secs(5)).await.unwrap();
        let seen = handler.seen();
        let mut first = seen[0].clone();
        first.sort();
        assert_eq!(
            first,
            [
                "a0/1", "a1/1", "a2/1", "a3/1", "b0/1", "b1/1", "b2/1", "b3/1"
            ],
            "several messages of a key in one batch"
        );
        for group in ["a", "b"] {
            assert_order(&handler, group, 4);
        }
        let stats = counters.stats();
        assert_eq!((stats.handled, stats.failed, stats.refused), (8, 3, 0));
        // a2 a3, then b1 b3 (b2 had failed itself), then b3.
        assert_eq!(stats.repeated, 5, "{seen:?}");
    }
}

/// Order by key in this process.
fn fifo_less() -> Subscription {
    Subscription::new("t", "g")
        .order(Order::ByKey)
        .concurrency(1)
        .ordered_policy(Policy::ordered().backoff(Backoff::fixed(secs(2))))
}

#[tokio::test(start_paused = true)]
async fn a_key_goes_on_behind_a_dead_letter_in_the_same_batch() {
    async fn judge(State(seen): State<Batches>, batch: Batch<Json<u8>>) -> BatchOutcome<Refused> {
        seen.add(batch.iter().map(|item| item.body.0.to_string()).collect());
        let mut outcome = BatchOutcome::new();
        for (index, item) in batch.iter().enumerate() {
            if item.body.0 == 3 {
                outcome.fail(index, Refused(Disposition::Poison));
            }
        }
        outcome.rest_ok()
    }
    let (broker, seen) = (Broker::new().batches_are_units(1), Batches::default());
    for body in ["1", "x", "2", "3", "4"] {
        publish(&broker, Message::new("t", body).group("a")).await;
    }
    let router = Router::new()
        .subscribe_batch(fifo(), BatchSettings::new(20), judge)
        .with_state(seen.clone());
    let started = Started::start(server(&broker, router)).await;
    done(&broker).await;
    assert_eq!(seen.all(), [["1", "2", "3", "4"]]);
    let dead: Vec<_> = broker.dead_letters("g").iter().map(text).collect();
    assert_eq!(dead, ["x", "3"]);
    started.stop(secs(5)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_failing_key_parks_only_itself_and_the_last_attempt_is_made_alone() {
    async fn refuse(
        State(seen): State<Log<(Duration, Vec<String>)>>,
        Extension(begin): Extension<Instant>,
        batch: Batch<Delivery>,
    ) -> Result<(), AnyError> {
        let bodies = bodies(&batch);
        seen.add((begin.elapsed(), bodies.clone()));
        if bodies.iter().any(|body| body == "a0") {
            return Err(AnyError::msg("on purpose"));
        }
        Ok(())
    }
    let broker = Broker::new().batches_are_units(1);
    let seen = Log::default();
    publish_two(&broker, 2, |m, group| m.group(group)).await;
    let router = Router::new()
        .subscribe_batch(fifo(), BatchSettings::new(20), refuse)
        .with_state(seen.clone());
    let server = server(&broker, router).extension(Instant::now());
    let started = Started::start(server).await;
    done(&broker).await;
    let dead: Vec<_> = broker.dead_letters("g").iter().map(text).collect();
    assert_eq!(dead, ["a0"], "{:?}", seen.all());
    let last = seen.all();
    let alone = last.iter().filter(|(_, batch)| *batch == ["a0"]).count();
    assert_eq!(alone, 1, "{last:?}");
    started.stop(secs(5)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_fills_does_not_delay_a_retry() {
    let broker = Broker::new();
    let handler = FailOnce::new(&["a0"]);
    publish_two(&broker, 1, |m, key| m.key(key)).await;
    let settings = BatchSettings::new(2).linger(secs(50));
    let router = Router::new()
        .subscribe_batch(fifo_less(), settings, FailOnce::handle)
        .with_state(handler.clone());
    let started = Started::start(server(&broker, router)).await;
    until("it has failed", || handler.seen.len() == 1).await;
    // A batch of one begins to fill; the retry, 2 s after the failure, is the other.
    let begin = Instant::now();
    publish(&broker, Message::new("t", "c0").key("c")).await;
    until("it is tried again", || handler.seen.len() >= 2).await;
    assert!(begin.elapsed() < secs(5), "after {:?}", begin.elapsed());
    done(&broker).await;
    started.stop(secs(5)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_rate_limit_counts_batches() {
    let (broker, seen) = (Broker::new(), Batches::default());
    publish_numbers(&broker, 40).await;
    let limit = RateLimit::per_second(1).burst(1);
    let subscription = subscription().rate_limit(limit);
    let router = Router::new()
        .subscribe_batch(subscription, BatchSettings::new(10), note)
        .with_state(seen.clone());
    let begin = Instant::now();
    let started = Started::start(server(&broker, router)).await;
    done(&broker).await;
    assert_eq!(sizes(&seen), [10; 4]);
    assert!(
        (3..=4).contains(&begin.elapsed().as_secs()),
        "{:?}",
        begin.elapsed()
    );
    started.stop(secs(5)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_stop_in_the_middle_of_retries_keeps_the_order() {
    async fn never_first(State(seen): State<Batches>, batch: Batch<Delivery>) -> BatchOutcome {
        seen.add(bodies(&batch));
        let results = batch.iter().map(|item| match &*text(&item.body) {
            "a1" => Err(AnyError::msg("on purpose")),
            _ => Ok(()),
        });
        results.collect()
    }
    let (broker, seen) = (Broker::new().batches_are_units(1), Batches::default());
    publish_two(&broker, 4, |m, group| m.group(group)).await;
    let subscription = fifo().ordered_policy(Policy::ordered().backoff(Backoff::fixed(secs(100))));
    let router = Router::new()
        .subscribe_batch(subscription, BatchSettings::new(20), never_first)
        .with_state(seen.clone());
    let started = Started::start(server(&broker, router)).await;
    until("it waits", || seen.len() == 1).await;
    sleep(secs(1)).await;
    // b1, b2, b3 have overtaken a1: it is waited for, in vain.
    let error = started.stop(secs(10)).await.unwrap_err();
    assert!(!error.abandoned_ids().is_empty());
    let handler = FailOnce::new(&[]);
    let router = Router::new()
        .subscribe_batch(fifo(), BatchSettings::new(20), FailOnce::handle)
        .with_state(handler.clone());
    let started = Started::start(server(&broker, router)).await;
    done(&broker).await;
    let again = handler.seen().concat();
    let of_a: Vec<_> = again.iter().filter(|body| body.starts_with('a')).collect();
    let of_a: Vec<_> = of_a.iter().map(|body| &body[..2]).collect();
    assert_eq!(of_a, ["a1", "a2", "a3"]);
    started.stop(secs(5)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn dead_letters_of_a_batch_go_to_the_topic_and_the_rest_is_settled() {
    async fn odd_is_bad(State(seen): State<Batches>, batch: Batch<Json<u8>>) -> BatchOutcome {
        let mut outcome = BatchOutcome::new();
        for (index, item) in batch.iter().enumerate() {
            if item.body.0 % 2 == 1 {
                outcome.fail(
                    index,
                    AnyError::from(kratos_broker::Rejection::poison("odd")),
                );
            }
        }
        seen.add(Vec::new());
        outcome.rest_ok()
    }
    let broker = Broker::new();
    let seen = Batches::default();
    let subscription = one()
        .order(Order::ByKey)
        .dead_letter(kratos_broker::DeadLetter::topic("dead"));
    let router = Router::new()
        .subscribe_batch(subscription, BatchSettings::new(10), odd_is_bad)
        .with_state(seen.clone());
    for n in 0..10 {
        publish(&broker, Message::new("t", n.to_string()).key("one")).await;
    }
    publish(&broker, Message::new("t", "no number").key("one")).await;
    broker.fail_publishes(3);
    let server = server(&broker, router);
    let counters = server.counters();
    let started = Started::start(server).await;
    done(&broker).await;
    started.stop(secs(5)).await.unwrap();
    let stats = counters.stats();
    assert_eq!(
        (stats.dead_lettered, stats.poisoned, stats.handled),
        (6, 6, 5)
    );
    assert_eq!((stats.received, stats.repeated), (11, 0));
    assert_eq!(
        seen.len(),
        1,
        "the handler does not see what does not decode"
    );
}

#[tokio::test(start_paused = true)]
async fn the_kill_switch_tries_one_message_and_keeps_the_rest_of_a_batch() {
    type Down = std::sync::Arc<std::sync::atomic::AtomicBool>;
    async fn save(
        State((down, seen)): State<(Down, Batches)>,
        batch: Batch<Delivery>,
    ) -> Result<(), AnyError> {
        seen.add(bodies(&batch));
        if down.load(std::sync::atomic::Ordering::SeqCst) {
            return crate::support::failed();
        }
        Ok(())
    }
    let broker = Broker::new();
    let (down, seen) = (Down::new(true.into()), Batches::default());
    let switch = kratos_broker::KillSwitch::new()
        .failures_in_a_row(8)
        .pause(secs(10));
    let router = Router::new()
        .subscribe_batch(one().kill_switch(switch), BatchSettings::new(10), save)
        .with_state((down.clone(), seen.clone()));
    for n in 0..10 {
        publish(&broker, Message::new("t", n.to_string())).await;
    }
    let server = server(&broker, router);
    let counters = server.counters();
    let started = Started::start(server).await;
    until("it has tried twice", || seen.len() == 3).await;
    assert_eq!(sizes(&seen), [10, 1, 1], "one each time");
    assert_eq!(
        (counters.stats().switch_opened, counters.stats().kept),
        (1, 5)
    );
    down.store(false, std::sync::atomic::Ordering::SeqCst);
    done(&broker).await;
    assert!(broker.dead_letters("g").is_empty());
    started.stop(secs(5)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_pause_starts_no_batch_that_is_being_filled() {
    let broker = Broker::new();
    let sizes = Log::default();
    let handler = {
        let sizes = sizes.clone();
        move |batch: Batch<Delivery>| {
            let sizes = sizes.clone();
            async move { sizes.add(batch.len()) }
        }
    };
    let settings = BatchSettings::new(100).linger(secs(30));
    let server = server(
        &broker,
        Router::new().subscribe_batch(subscription(), settings, handler),
    );
    let controls = server.controls();
    let started = Started::start(server).await;
    publish_numbers(&broker, 3).await;
    sleep(secs(1)).await;
    assert!(controls.pause("t", "g"));
    sleep(secs(60)).await;
    assert_eq!(sizes.all(), Vec::<usize>::new(), "it is paused");
    controls.resume("t", "g");
    until("they are handled", || broker.backlog("t", "g") == 0).await;
    started.stop(secs(5)).await.unwrap();
}
