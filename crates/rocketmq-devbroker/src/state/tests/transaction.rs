//! Transactions, as measured: what an end does, and what checks do.

use rocketmq_proto::v2::{Code, MessageType, TransactionResolution, TransactionSource};

use crate::state::{
    Draft, End, Limits, Push, Refusal, Role, TopicType,
    tests::bench::{Bench, draft, ids, seconds},
};
use crate::state::{GroupConfig, TopicType::Transaction};

const COMMIT: TransactionResolution = TransactionResolution::Commit;
const ROLLBACK: TransactionResolution = TransactionResolution::Rollback;

fn of_type(kind: TopicType) -> Bench {
    Bench::with(GroupConfig::new(), kind, Limits::default())
}

fn half(bench: &Bench, id: &str) -> Draft {
    Draft {
        declared: MessageType::Transaction,
        born_at: bench.now,
        ..draft("t", id)
    }
}

fn prepare(bench: &mut Bench, id: &str) {
    let half = half(bench, id);
    let sent = bench.send(half).unwrap();
    assert_eq!(sent.transaction_id, id);
}

fn end(
    bench: &mut Bench,
    id: &str,
    resolution: TransactionResolution,
    source: TransactionSource,
) -> Result<(), Refusal> {
    let end = End {
        topic: "t",
        transaction_id: id,
        resolution,
        source,
    };
    bench.state.end_transaction(bench.now, &end)
}

/// An end by the producer itself.
fn own(bench: &mut Bench, id: &str, resolution: TransactionResolution) -> Result<(), Refusal> {
    end(bench, id, resolution, TransactionSource::SourceClient)
}

/// An end in answer to a check.
fn checked(bench: &mut Bench, id: &str, resolution: TransactionResolution) -> Result<(), Refusal> {
    end(bench, id, resolution, TransactionSource::SourceServerCheck)
}

fn producer(bench: &mut Bench, client: &str) {
    let topics = vec!["t".to_owned()];
    let role = Role::Producer { topics };
    bench.state.register(bench.now, client, role, true).unwrap();
}

/// Lets time pass and tells who was asked about what, and for how many times.
fn checks(bench: &mut Bench, time: u64) -> Vec<(String, String, String)> {
    let mut pushes = Vec::new();
    for _ in 0..time {
        bench.pass(seconds(1));
        pushes.extend(bench.state.take_pushes());
    }
    pushes
        .into_iter()
        .map(|(client, push)| {
            let Push::RecoverTransaction(half) = push;
            let count = half.draft.properties["TRANSACTION_CHECK_TIMES"].clone();
            (client.to_string(), half.draft.id.clone(), count)
        })
        .collect()
}

fn check(client: &str, id: &str, count: u32) -> (String, String, String) {
    (client.to_owned(), id.to_owned(), count.to_string())
}

#[test]
fn a_half_message_is_seen_after_its_commit_only() {
    let mut bench = of_type(Transaction);
    prepare(&mut bench, "m1");
    prepare(&mut bench, "m2");
    assert!(bench.receive("a").is_empty());
    assert_eq!(bench.state.lag(bench.now, "t", "g"), 0);
    own(&mut bench, "m1", COMMIT).unwrap();
    own(&mut bench, "m2", ROLLBACK).unwrap();
    let got = bench.receive("a");
    assert_eq!(ids(&got), ["m1"]);
    let message = &got[0].message;
    assert_eq!(message.kind, MessageType::Transaction);
    assert_eq!(message.draft.properties["__transactionId__"], "m1");
    bench.ack(&got[0].handle).unwrap();
    bench.pass(seconds(100));
    assert!(bench.receive("a").is_empty());
    assert_eq!(bench.state.next_event(), None);
}

#[test]
fn a_transaction_is_ended_once_within_30_seconds() {
    let mut bench = of_type(Transaction);
    prepare(&mut bench, "m1");
    own(&mut bench, "m1", COMMIT).unwrap();
    let refusal = own(&mut bench, "m1", ROLLBACK).unwrap_err();
    assert_eq!(refusal.code, Code::InternalServerError);
    assert_eq!(refusal.message, "cannot found transaction data");
    prepare(&mut bench, "m2");
    bench.pass(seconds(30));
    let refusal = own(&mut bench, "m2", COMMIT).unwrap_err();
    assert_eq!(refusal.code, Code::InternalServerError);
    let refusal = own(&mut bench, " ", COMMIT).unwrap_err();
    assert_eq!(refusal.code, Code::InvalidTransactionId);
    assert_eq!(ids(&bench.receive("a")), ["m1"]);
}

#[test]
fn an_end_without_resolution_is_spent_and_does_nothing() {
    let mut bench = of_type(Transaction);
    producer(&mut bench, "p");
    prepare(&mut bench, "m");
    own(&mut bench, "m", TransactionResolution::Unspecified).unwrap();
    own(&mut bench, "m", COMMIT).unwrap_err();
    assert_eq!(checks(&mut bench, 6), [check("p", "m", 1)]);
}

#[test]
fn halves_of_one_id_are_ended_newest_first() {
    let mut bench = of_type(Transaction);
    for value in ["1", "2"] {
        let mut half = half(&bench, "m");
        half.properties.insert("n".to_owned(), value.to_owned());
        bench.send(half).unwrap();
    }
    (0..2).for_each(|_| own(&mut bench, "m", COMMIT).unwrap());
    own(&mut bench, "m", COMMIT).unwrap_err();
    let got = bench.receive("a");
    let order: Vec<&str> = got
        .iter()
        .map(|d| &*d.message.draft.properties["n"])
        .collect();
    assert_eq!(order, ["2", "1"]);
}

#[test]
fn producers_of_the_topic_are_asked_in_turn_until_the_answer() {
    let mut bench = of_type(Transaction);
    producer(&mut bench, "p");
    producer(&mut bench, "q");
    prepare(&mut bench, "m");
    assert_eq!(checks(&mut bench, 5), []);
    assert_eq!(checks(&mut bench, 1), [check("p", "m", 1)]);
    assert_eq!(checks(&mut bench, 29), []);
    assert_eq!(checks(&mut bench, 1), [check("q", "m", 2)]);
    assert_eq!(checks(&mut bench, 30), [check("p", "m", 3)]);
    checked(&mut bench, "m", COMMIT).unwrap();
    assert_eq!(checks(&mut bench, 100), []);
    let got = bench.receive("a");
    assert_eq!(ids(&got), ["m"]);
    assert_eq!(
        got[0].message.draft.properties["TRANSACTION_CHECK_TIMES"],
        "3"
    );
}

#[test]
fn two_answers_to_one_check_deliver_twice_even_after_a_rollback() {
    let mut bench = of_type(Transaction);
    producer(&mut bench, "p");
    for (id, first) in [("m1", COMMIT), ("m2", ROLLBACK)] {
        prepare(&mut bench, id);
        assert_eq!(checks(&mut bench, 6).len(), 1);
        checked(&mut bench, id, first).unwrap();
        checked(&mut bench, id, COMMIT).unwrap();
        checked(&mut bench, id, COMMIT).unwrap_err();
    }
    assert_eq!(checks(&mut bench, 60), []);
    assert_eq!(ids(&bench.receive("a")), ["m1", "m1", "m2"]);
}

#[test]
fn checks_without_a_producer_are_counted_and_one_that_comes_later_is_asked() {
    let mut bench = of_type(Transaction);
    producer(&mut bench, "p");
    prepare(&mut bench, "m");
    bench.state.terminate(bench.now, "p", "").unwrap();
    assert_eq!(checks(&mut bench, 40), []);
    producer(&mut bench, "p-restarted");
    assert_eq!(checks(&mut bench, 30), [check("p-restarted", "m", 3)]);
    checked(&mut bench, "m", COMMIT).unwrap();
    assert_eq!(ids(&bench.receive("a")), ["m"]);
}

#[test]
fn after_15_checks_the_message_is_given_up() {
    let mut bench = of_type(Transaction);
    producer(&mut bench, "p");
    prepare(&mut bench, "m");
    assert_eq!(checks(&mut bench, 6 + 100 * 30).len(), 15);
    assert!(bench.state.half_messages("t").is_empty());
    assert_eq!(bench.state.next_event(), None);
    checked(&mut bench, "m", COMMIT).unwrap_err();
    assert!(bench.receive("a").is_empty());
}

#[test]
fn a_recovery_duration_puts_checks_off_and_bounds_the_producers_own_end() {
    let mut bench = of_type(Transaction);
    producer(&mut bench, "p");
    let recovering = |bench: &Bench, id, recovery| Draft {
        recovery_seconds: Some(recovery),
        ..half(bench, id)
    };
    let m1 = recovering(&bench, "m1", 100);
    bench.send(m1).unwrap();
    assert_eq!(checks(&mut bench, 99), []);
    // Passes are at 6, 36, 66, 96 and 126 s; those before 100 s count without asking.
    assert_eq!(checks(&mut bench, 27), [check("p", "m1", 5)]);
    let m2 = recovering(&bench, "m2", 1);
    bench.send(m2).unwrap();
    bench.pass(seconds(2));
    own(&mut bench, "m2", COMMIT).unwrap();
    assert!(
        bench.receive("a").is_empty(),
        "OK is said, but it came too late"
    );
    assert_eq!(checks(&mut bench, 4), [check("p", "m2", 1)]);
    let refusal = recovering(&bench, "m3", 3601);
    assert_eq!(bench.send(refusal).unwrap_err().code, Code::BadRequest);
}

#[test]
fn a_commit_after_a_put_off_check_does_not_always_end_the_checks() {
    let mut bench = of_type(Transaction);
    producer(&mut bench, "p");
    for (id, recovery) in [("seen", 50), ("unseen", 10)] {
        let half = Draft {
            recovery_seconds: Some(recovery),
            ..half(&bench, id)
        };
        bench.send(half).unwrap();
    }
    assert_eq!(checks(&mut bench, 7), []);
    own(&mut bench, "seen", COMMIT).unwrap();
    own(&mut bench, "unseen", COMMIT).unwrap();
    assert_eq!(checks(&mut bench, 30), [check("p", "unseen", 2)]);
    assert_eq!(ids(&bench.receive("a")), ["seen", "unseen"]);
}

#[test]
fn the_proxy_forgets_its_transactions_when_it_goes_away_the_broker_does_not() {
    let mut bench = of_type(Transaction);
    prepare(&mut bench, "m");
    bench.state.forget_clients();
    own(&mut bench, "m", COMMIT).unwrap_err();
    producer(&mut bench, "p");
    assert_eq!(checks(&mut bench, 6), [check("p", "m", 1)]);
    checked(&mut bench, "m", COMMIT).unwrap();
    assert_eq!(bench.state.messages("t").len(), 1);
}

#[test]
fn half_messages_fill_the_store_and_leave_it() {
    let limits = Limits {
        max_stored_bytes: 2000,
        retained_messages: 0,
        ..Limits::default()
    };
    let mut bench = Bench::with(GroupConfig::new(), Transaction, limits);
    for id in ["m1", "m2", "m3"] {
        prepare(&mut bench, id);
    }
    let m4 = half(&bench, "m4");
    assert_eq!(
        bench.send(m4.clone()).unwrap_err().code,
        Code::TooManyRequests
    );
    own(&mut bench, "m1", ROLLBACK).unwrap();
    bench.send(m4).unwrap();
}

#[test]
fn a_transaction_is_one_message_to_a_topic_of_its_type() {
    let mut bench = of_type(Transaction);
    let two = vec![half(&bench, "m1"), half(&bench, "m2")];
    let refusal = bench.state.send(bench.now, two).unwrap_err();
    assert_eq!(refusal.code, Code::InternalServerError);
    let mut bench = of_type(TopicType::Normal);
    let one = half(&bench, "m");
    let refusal = bench.send(one).unwrap_err();
    assert_eq!(refusal.code, Code::MessagePropertyConflictWithType);
}
