//! Attempts and what comes after the last one.

use rocketmq_proto::v2::Code;

use crate::state::tests::bench::{Bench, LEASE, attempts, ids, seconds};

#[test]
fn without_retries_one_hand_back_makes_a_dead_letter() {
    let mut bench = Bench::retries(0);
    bench.put("m");
    let handle = bench.receive("a")[0].handle.clone();
    bench.change(&handle, seconds(0)).unwrap();
    assert!(bench.receive("b").is_empty());
    assert_eq!(bench.dead_letters(), ["m"]);
}

#[test]
fn with_one_retry_the_second_failed_attempt_makes_a_dead_letter() {
    let mut bench = Bench::retries(1);
    bench.put("m");
    let handle = bench.receive("a")[0].handle.clone();
    bench.change(&handle, seconds(0)).unwrap();
    assert_eq!(bench.dead_letters(), [""; 0]);
    assert_eq!(attempts(&bench.receive("a")), [2]);
    bench.pass(LEASE);
    assert_eq!(bench.dead_letters(), ["m"]);
    assert!(bench.receive("b").is_empty());
    assert_eq!(bench.in_flight(), 0);
}

#[test]
fn an_extension_on_the_last_attempt_does_not_give_the_message_up() {
    let mut bench = Bench::retries(0);
    bench.put("m");
    let mut handle = bench.receive("a")[0].handle.clone();
    for _ in 0..5 {
        bench.pass(seconds(9));
        handle = bench.change(&handle, LEASE).unwrap();
    }
    assert_eq!(bench.dead_letters(), [""; 0]);
    bench.ack(&handle).unwrap();
}

#[test]
fn a_forwarded_message_keeps_its_id_and_properties_and_leaves_its_topic() {
    let mut bench = Bench::new();
    bench.put("m");
    let handle = bench.receive("a")[0].handle.clone();
    bench.forward(&handle).unwrap();
    let dead = &bench.state.dead_letters("g")[0];
    assert_eq!(dead.id, "m");
    assert_eq!(dead.topic, "%DLQ%g");
    assert_eq!(dead.properties["k"], "v");
    assert_eq!(dead.dead_letter_of, Some(("t".to_owned(), "m".to_owned())));
    bench.pass(LEASE * 2);
    assert!(bench.receive("b").is_empty());
}

#[test]
fn a_message_is_forwarded_once() {
    let mut bench = Bench::new();
    bench.put("m");
    let handle = bench.receive("a")[0].handle.clone();
    bench.forward(&handle).unwrap();
    assert_eq!(
        bench.forward(&handle).unwrap_err().code,
        Code::InvalidReceiptHandle
    );
    assert_eq!(bench.dead_letters(), ["m"]);
}

#[test]
fn a_settled_message_of_an_ordered_group_is_not_forwarded() {
    let mut bench = Bench::fifo();
    bench.put_ordered(&["g1-1", "g1-2"]);
    let held = bench.receive_ordered("a", "x", 32);
    bench.ack(&held[0].handle).unwrap();
    assert_eq!(
        bench.forward(&held[0].handle).unwrap_err().code,
        Code::InvalidReceiptHandle
    );
    bench.forward(&held[1].handle).unwrap();
    assert_eq!(
        bench.forward(&held[1].handle).unwrap_err().code,
        Code::InvalidReceiptHandle
    );
    assert_eq!(bench.dead_letters(), ["g1-2"]);
}

#[test]
fn a_dead_letter_topic_is_consumed_like_any_other() {
    let mut bench = Bench::new();
    bench.put("m");
    let handle = bench.receive("a")[0].handle.clone();
    bench.forward(&handle).unwrap();
    let dead = bench.on("%DLQ%g").receive("a");
    // The attempts go on.
    assert_eq!((ids(&dead), attempts(&dead)), (vec!["m"], vec![2]));
    bench.ack(&dead[0].handle).unwrap();
    bench.pass(LEASE);
    assert!(bench.receive("a").is_empty());
}

#[test]
fn the_dead_letter_topic_exists_only_once_there_is_one() {
    let mut bench = Bench::new();
    assert_eq!(
        bench.state.open_topic("%DLQ%g").unwrap_err().code,
        Code::TopicNotFound
    );
    bench.put("m");
    let handle = bench.receive("a")[0].handle.clone();
    bench.forward(&handle).unwrap();
    assert_eq!(bench.state.open_topic("%DLQ%g").unwrap().queue_count(), 1);
}

#[test]
fn a_dead_letter_without_attempts_left_stays_in_its_own_groups_dead_letters() {
    for mut bench in [Bench::retries(0), Bench::fifo_retries(0)] {
        bench.put_ordered(&["g-1"]);
        let held = bench.receive_ordered("a", "x", 1);
        bench.change(&held[0].handle, seconds(0)).unwrap();
        assert!(bench.receive_ordered("a", "y", 1).is_empty());
        bench.on("%DLQ%g");
        for attempt in ["1", "2"] {
            bench.state.take_ready();
            assert!(bench.receive_ordered("a", attempt, 1).is_empty());
            assert!(bench.state.take_ready().is_empty(), "nobody is woken");
        }
        assert_eq!(bench.dead_letters(), ["g-1"]);
    }
}

#[test]
fn the_attempts_of_a_dead_letter_go_on_as_it_was_given_up() {
    // Forwarded at its second attempt, or failed at its last; read by another group.
    for (forwarded, next) in [(true, 3), (false, 4)] {
        let mut bench = Bench::retries(1);
        bench.put("m");
        let handle = bench.receive("a")[0].handle.clone();
        bench.change(&handle, seconds(0)).unwrap();
        let handle = bench.receive("a")[0].handle.clone();
        if forwarded {
            bench.forward(&handle).unwrap();
        } else {
            bench.change(&handle, seconds(0)).unwrap();
        }
        bench.reader("h");
        let bench = bench.on("%DLQ%g");
        let held = bench.receive("a");
        assert_eq!(attempts(&held), [next]);
        bench.change(&held[0].handle, seconds(0)).unwrap();
        assert_eq!(attempts(&bench.receive("a")), [next + 1]);
    }
}

#[test]
fn an_ack_of_a_message_that_was_given_up_fails() {
    let mut bench = Bench::retries(0);
    bench.put("m");
    let held = bench.receive("a");
    bench.state.expire_leases(bench.now, "g");
    assert_eq!(bench.dead_letters(), ["m"]);
    let refusal = bench.ack(&held[0].handle).unwrap_err();
    assert_eq!(refusal.code, Code::InvalidReceiptHandle);
}
