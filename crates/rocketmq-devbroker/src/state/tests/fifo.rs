//! Ordered groups, row by row as measured on the real server.

use rocketmq_proto::v2::Code;

use crate::state::tests::bench::{Bench, LEASE, attempts, ids, seconds};

const SIX: [&str; 6] = ["g1-1", "g1-2", "g1-3", "g2-1", "g2-2", "g2-3"];

#[test]
fn all_groups_of_a_queue_come_in_one_receive_in_order() {
    let mut bench = Bench::fifo();
    bench.put_ordered(&SIX);
    assert_eq!(ids(&bench.receive_ordered("a", "x", 32)), SIX);
}

#[test]
fn a_held_queue_is_blocked_for_everybody_until_all_of_it_is_settled() {
    let mut bench = Bench::fifo();
    bench.put_ordered(&SIX);
    let held = bench.receive_ordered("a", "x", 32);
    bench.put_ordered(&["g1-4"]);
    for delivered in &held {
        assert!(bench.receive_ordered("b", "y", 32).is_empty());
        assert!(bench.receive_ordered("a", "z", 32).is_empty());
        bench.ack(&delivered.handle).unwrap();
    }
    assert_eq!(ids(&bench.receive_ordered("b", "y", 32)), ["g1-4"]);
}

#[test]
fn the_same_attempt_id_gets_the_same_messages_again() {
    let mut bench = Bench::fifo();
    bench.put_ordered(&SIX);
    bench.receive_ordered("a", "x", 32);
    let again = bench.receive_ordered("a", "x", 32);
    assert_eq!(ids(&again), SIX);
    assert_eq!(attempts(&again), [1; 6]);
    again.iter().for_each(|d| bench.ack(&d.handle).unwrap());
}

#[test]
fn later_messages_may_be_acked_before_earlier_ones() {
    let mut bench = Bench::fifo();
    bench.put_ordered(&SIX);
    let held = bench.receive_ordered("a", "x", 32);
    for i in [3, 4, 5, 0, 1, 2] {
        bench.ack(&held[i].handle).unwrap();
    }
    bench.pass(LEASE * 2);
    assert!(bench.receive_ordered("b", "y", 32).is_empty());
}

#[test]
fn with_empty_attempt_ids_everything_comes_again_and_older_acks_fail() {
    let mut bench = Bench::fifo();
    bench.put_ordered(&SIX);
    let held = bench.receive_ordered("a", "", 32);
    held[3..].iter().for_each(|d| bench.ack(&d.handle).unwrap());
    let again = bench.receive_ordered("b", "", 32);
    assert_eq!((ids(&again), attempts(&again)), (SIX.to_vec(), vec![1; 6]));
    assert_eq!(
        bench.ack(&held[0].handle).unwrap_err().code,
        Code::InvalidReceiptHandle
    );
}

#[test]
fn handing_back_all_that_is_open_frees_the_queue_with_the_attempt_still_1() {
    let mut bench = Bench::fifo();
    bench.put_ordered(&["k-1", "k-2", "k-3"]);
    let held = bench.receive_ordered("a", "x", 2);
    bench.ack(&held[0].handle).unwrap();
    bench.change(&held[1].handle, seconds(0)).unwrap();
    let next = bench.receive_ordered("b", "y", 32);
    assert_eq!(
        (ids(&next), attempts(&next)),
        (vec!["k-2", "k-3"], vec![1, 1])
    );
}

#[test]
fn an_ack_behind_a_message_that_is_handed_back_is_undone() {
    let mut bench = Bench::fifo();
    bench.put_ordered(&["k1-1", "k2-1"]);
    let held = bench.receive_ordered("a", "x", 32);
    bench.ack(&held[1].handle).unwrap();
    bench.change(&held[0].handle, seconds(0)).unwrap();
    let again = bench.receive_ordered("b", "y", 32);
    assert_eq!(
        (ids(&again), attempts(&again)),
        (vec!["k1-1", "k2-1"], vec![2, 2])
    );
}

#[test]
fn an_ack_behind_a_message_that_was_handed_back_is_undone_too() {
    let mut bench = Bench::fifo();
    bench.put_ordered(&["k1-1", "k2-1"]);
    let held = bench.receive_ordered("a", "x", 32);
    bench.change(&held[0].handle, seconds(0)).unwrap();
    assert!(
        bench.receive_ordered("b", "y", 32).is_empty(),
        "the other one is still held"
    );
    bench.ack(&held[1].handle).unwrap();
    assert_eq!(ids(&bench.receive_ordered("b", "z", 32)), ["k1-1", "k2-1"]);
}

#[test]
fn an_ack_behind_a_message_that_lapses_is_undone() {
    let mut bench = Bench::fifo();
    bench.put_ordered(&["k1-1", "k2-1"]);
    let held = bench.receive_ordered("a", "x", 32);
    bench.ack(&held[1].handle).unwrap();
    bench.pass(LEASE);
    assert_eq!(ids(&bench.receive_ordered("b", "y", 32)), ["k1-1", "k2-1"]);
}

#[test]
fn nobody_gets_the_next_message_while_an_earlier_one_of_the_queue_is_held() {
    let mut bench = Bench::fifo();
    bench.put_ordered(&["k1-1", "k2-1"]);
    let held = bench.receive_ordered("a", "x", 32);
    bench.ack(&held[1].handle).unwrap();
    bench.put_ordered(&["k2-2"]);
    assert!(bench.receive_ordered("b", "y", 32).is_empty());
    bench.ack(&held[0].handle).unwrap();
    assert_eq!(ids(&bench.receive_ordered("b", "y", 32)), ["k2-2"]);
}

#[test]
fn a_nack_takes_effect_when_the_whole_batch_is_settled_or_lapsed() {
    let mut bench = Bench::fifo();
    bench.put_ordered(&["k1-1", "k2-1", "k1-2"]);
    let held = bench.receive_ordered("a", "x", 32);
    bench.ack(&held[1].handle).unwrap();
    bench.change(&held[0].handle, seconds(4)).unwrap();
    bench.pass(LEASE - seconds(1));
    assert!(bench.receive_ordered("b", "y", 32).is_empty());
    bench.put_ordered(&["k3-1"]);
    bench.pass(seconds(1));
    let again = bench.receive_ordered("b", "y", 32);
    assert_eq!(ids(&again), ["k1-1", "k2-1", "k1-2", "k3-1"]);
    assert_eq!(
        attempts(&again),
        [1; 4],
        "a new message in the batch makes it the first attempt"
    );
}

#[test]
fn extending_every_message_of_a_batch_works() {
    let mut bench = Bench::fifo();
    bench.put_ordered(&["k1-1", "k2-1"]);
    let held = bench.receive_ordered("a", "x", 32);
    let mut handles: Vec<String> = held.iter().map(|d| d.handle.clone()).collect();
    for _ in 0..4 {
        bench.pass(seconds(5));
        for handle in &mut handles {
            *handle = bench.change(handle, LEASE).unwrap();
        }
        assert!(bench.receive_ordered("b", "y", 32).is_empty());
    }
    handles.iter().for_each(|handle| bench.ack(handle).unwrap());
    bench.pass(LEASE * 2);
    assert!(bench.receive_ordered("b", "y", 32).is_empty());
}

#[test]
fn a_batch_out_of_attempts_becomes_dead_letters_and_the_queue_goes_on() {
    let config = crate::state::GroupConfig::new()
        .fifo(true)
        .retry_max_times(1);
    let limits = crate::state::Limits::default();
    let mut bench = Bench::with(config, crate::state::TopicType::Fifo, limits);
    bench.put_ordered(&["k-1"]);
    for (id, attempt) in [("x", 1), ("y", 2)] {
        assert_eq!(attempts(&bench.receive_ordered("a", id, 1)), [attempt]);
        bench.pass(LEASE);
    }
    bench.put_ordered(&["k-2"]);
    assert_eq!(ids(&bench.receive_ordered("a", "z", 1)), ["k-2"]);
    assert_eq!(bench.dead_letters(), ["k-1"]);
}

#[test]
fn deliveries_that_were_never_written_free_the_queue_and_spend_no_attempt() {
    let mut bench = Bench::fifo();
    bench.put_ordered(&["k-1", "k-2"]);
    let held = bench.receive_ordered("a", "x", 32);
    bench.state.hand_back(bench.now, &held);
    let again = bench.receive_ordered("b", "y", 32);
    assert_eq!(
        (ids(&again), attempts(&again)),
        (vec!["k-1", "k-2"], vec![1, 1])
    );
    assert_eq!(bench.in_flight(), 2);
}

#[test]
fn a_freed_queue_wakes_those_who_wait() {
    let mut bench = Bench::fifo();
    bench.put_ordered(&["k-1"]);
    bench.receive_ordered("a", "x", 32);
    bench.state.take_ready();
    assert_eq!(bench.state.next_event(), Some(bench.now.plus(LEASE)));
    bench.pass(LEASE);
    assert!(bench.state.take_ready().contains("t"));
}
