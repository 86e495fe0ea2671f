//! Leases on a normal topic, row by row as measured on the real server.

use rocketmq_proto::v2::Code;

use crate::state::{
    Ask, TopicType,
    tests::bench::{Bench, LEASE, attempts, code, ids, seconds},
};

#[test]
fn a_held_message_is_given_to_nobody_else() {
    let mut bench = Bench::new();
    bench.put("m");
    assert_eq!(ids(&bench.receive("a")), ["m"]);
    assert!(bench.receive("b").is_empty());
    assert!(bench.receive("a").is_empty());
    assert_eq!(bench.in_flight(), 1);
}

#[test]
fn an_ack_may_be_repeated_while_the_handle_is_current() {
    let mut bench = Bench::new();
    bench.put("m");
    let handle = bench.receive("a")[0].handle.clone();
    bench.ack(&handle).unwrap();
    bench.ack(&handle).unwrap();
    bench.pass(LEASE);
    assert_eq!(code(bench.ack(&handle)), Code::InvalidReceiptHandle);
    assert!(bench.receive("b").is_empty());
}

#[test]
fn settling_out_of_order_is_fine() {
    let mut bench = Bench::new();
    bench.put_all(&["m1", "m2", "m3"]);
    let held = bench.receive("a");
    for i in [2, 0] {
        bench.ack(&held[i].handle).unwrap();
    }
    bench.pass(LEASE);
    assert_eq!(ids(&bench.receive("b")), ["m2"]);
}

#[test]
fn an_ack_after_the_lease_ran_out_is_refused_and_the_message_comes_again() {
    let mut bench = Bench::new();
    bench.put("m");
    let first = bench.receive("a");
    bench.pass(LEASE + seconds(1));
    assert_eq!(
        code(bench.ack(&first[0].handle)),
        Code::InvalidReceiptHandle
    );
    let again = bench.receive("b");
    assert_eq!((ids(&again), attempts(&again)), (vec!["m"], vec![2]));
    assert_eq!(
        code(bench.ack(&first[0].handle)),
        Code::InvalidReceiptHandle
    );
    bench.ack(&again[0].handle).unwrap();
}

#[test]
fn extensions_keep_a_message_from_others_and_spend_no_attempt() {
    let mut bench = Bench::new();
    bench.put("m");
    let first = bench.receive("a")[0].handle.clone();
    let mut newest = first.clone();
    for _ in 0..4 {
        bench.pass(seconds(5));
        assert!(bench.receive("b").is_empty());
        newest = bench.change(&newest, LEASE).unwrap();
    }
    assert_eq!(code(bench.ack(&first)), Code::InvalidReceiptHandle);
    assert_eq!(bench.in_flight(), 1);
    bench.ack(&newest).unwrap();
    bench.pass(LEASE * 2);
    assert!(bench.receive("b").is_empty());
}

#[test]
fn a_lease_that_was_extended_and_left_to_lapse_comes_again_as_attempt_2() {
    let mut bench = Bench::new();
    bench.put("m");
    let mut handle = bench.receive("a")[0].handle.clone();
    for _ in 0..3 {
        bench.pass(seconds(5));
        handle = bench.change(&handle, LEASE).unwrap();
    }
    bench.pass(LEASE - seconds(1));
    assert!(bench.receive("b").is_empty());
    bench.pass(seconds(1));
    assert_eq!(attempts(&bench.receive("b")), [2]);
}

#[test]
fn an_invisible_duration_of_zero_hands_a_message_back_at_once_as_attempt_2() {
    let mut bench = Bench::new();
    bench.put("m");
    let handle = bench.receive("a")[0].handle.clone();
    let handle = bench.change(&handle, seconds(0)).unwrap();
    assert_eq!(code(bench.ack(&handle)), Code::InvalidReceiptHandle);
    assert_eq!(attempts(&bench.receive("b")), [2]);
}

#[test]
fn a_shorter_invisible_duration_brings_a_message_back_sooner() {
    let mut bench = Bench::new();
    bench.put("m");
    let handle = bench.receive("a")[0].handle.clone();
    bench.change(&handle, seconds(3)).unwrap();
    bench.pass(seconds(2));
    assert!(bench.receive("b").is_empty());
    bench.pass(seconds(1));
    assert_eq!(attempts(&bench.receive("b")), [2]);
}

#[test]
fn a_new_invisible_duration_over_12_hours_is_illegal() {
    let mut bench = Bench::new();
    bench.put("m");
    let handle = bench.receive("a")[0].handle.clone();
    assert_eq!(
        code(bench.change(&handle, seconds(13 * 3600))),
        Code::IllegalInvisibleTime
    );
    bench.ack(&handle).unwrap();
}

#[test]
fn what_is_no_handle_is_an_internal_error() {
    let mut bench = Bench::new();
    for garbage in ["", "garbage", "1-2-3", "0-0-0-1-ffffffffff-7", "x-0-0-1-ff"] {
        assert_eq!(
            code(bench.ack(garbage)),
            Code::InternalServerError,
            "{garbage:?}"
        );
        assert_eq!(
            code(bench.change(garbage, LEASE)),
            Code::InternalServerError
        );
        assert_eq!(code(bench.forward(garbage)), Code::InternalServerError);
    }
}

#[test]
fn a_handle_serves_only_its_own_topic_and_group() {
    let mut bench = Bench::new();
    bench.state.create_topic("u", TopicType::Normal, 1).unwrap();
    bench.put("m");
    let handle = bench.receive("a")[0].handle.clone();
    assert_eq!(code(bench.on("u").ack(&handle)), Code::InternalServerError);
    bench.on("t").ack(&handle).unwrap();
}

#[test]
fn deliveries_that_were_never_written_go_back_at_once_and_spend_no_attempt() {
    let mut bench = Bench::new();
    bench.put_all(&["m1", "m2", "m3"]);
    let delivered = bench.receive("a");
    bench.state.hand_back(bench.now, &delivered[1..]);
    let again = bench.receive("b");
    assert_eq!(
        (ids(&again), attempts(&again)),
        (vec!["m2", "m3"], vec![1, 1])
    );
    bench.ack(&delivered[0].handle).unwrap();
}

#[test]
fn a_renewed_lease_lasts_while_its_client_is_connected() {
    let mut bench = Bench::new();
    bench.put("m");
    let ask = Ask {
        invisible: None,
        auto_renew: true,
        ..bench.ask("a")
    };
    let handle = bench.receive_as(ask).unwrap()[0].handle.clone();
    for _ in 0..10 {
        bench.pass(seconds(60));
        assert!(bench.receive("b").is_empty());
    }
    bench.ack(&handle).unwrap();
    bench.pass(seconds(600));
    assert!(bench.receive("b").is_empty());
}

#[test]
fn a_renewed_lease_ends_after_three_hours() {
    let mut bench = Bench::new();
    bench.put("m");
    let ask = Ask {
        invisible: None,
        auto_renew: true,
        ..bench.ask("a")
    };
    bench.receive_as(ask).unwrap();
    (0..179).for_each(|_| bench.pass(seconds(60)));
    assert!(bench.receive("b").is_empty());
    bench.pass(seconds(60));
    assert_eq!(attempts(&bench.receive("b")), [2]);
}

#[test]
fn a_renewed_lease_ends_one_second_after_the_client_says_goodbye() {
    let mut bench = Bench::new();
    bench.put("m");
    let ask = Ask {
        invisible: None,
        auto_renew: true,
        ..bench.ask("a")
    };
    bench.receive_as(ask).unwrap();
    bench.state.terminate(bench.now, "a", "g").unwrap();
    assert!(bench.receive("b").is_empty());
    bench.pass(seconds(1));
    assert_eq!(attempts(&bench.receive("b")), [2]);
}

#[test]
fn a_renewed_lease_of_a_client_that_crashed_ends_with_its_step() {
    let mut bench = Bench::new();
    bench.put("m");
    let ask = Ask {
        invisible: None,
        auto_renew: true,
        ..bench.ask("a")
    };
    bench.receive_as(ask).unwrap();
    bench.state.stream_ended(bench.now, "a");
    bench.pass(seconds(59));
    assert!(bench.receive("b").is_empty());
    bench.pass(seconds(1));
    assert_eq!(attempts(&bench.receive("b")), [2]);
}

#[test]
fn goodbye_leaves_explicit_leases_as_they_are() {
    let mut bench = Bench::new();
    bench.put("m");
    bench.receive("a");
    bench.state.terminate(bench.now, "a", "g").unwrap();
    bench.pass(LEASE - seconds(1));
    assert!(bench.receive("b").is_empty());
    bench.pass(seconds(1));
    assert_eq!(attempts(&bench.receive("b")), [2]);
}

#[test]
fn expired_leases_are_out_of_date_at_once() {
    let mut bench = Bench::new();
    bench.put("m");
    let handle = bench.receive("a")[0].handle.clone();
    bench.state.expire_leases(bench.now, "g");
    assert_eq!(code(bench.ack(&handle)), Code::InvalidReceiptHandle);
    assert_eq!(attempts(&bench.receive("b")), [2]);
}

#[test]
fn a_dropped_ack_is_answered_with_ok_and_the_message_comes_again() {
    let mut bench = Bench::new();
    bench.put("m");
    let handle = bench.receive("a")[0].handle.clone();
    bench.state.faults.dropped_acks = 1;
    bench.ack(&handle).unwrap();
    bench.pass(LEASE);
    assert_eq!(attempts(&bench.receive("b")), [2]);
}

#[test]
fn the_next_event_is_the_end_of_the_earliest_lease() {
    let mut bench = Bench::new();
    assert_eq!(bench.state.next_event(), None);
    bench.put_all(&["m1", "m2"]);
    let held = bench.receive("a");
    bench.change(&held[1].handle, seconds(3)).unwrap();
    assert_eq!(bench.state.next_event(), Some(bench.now.plus(seconds(3))));
    bench.pass(seconds(3));
    assert!(bench.state.take_ready().contains("t"));
    assert_eq!(bench.state.next_event(), Some(bench.now.plus(seconds(7))));
    bench.ack(&held[0].handle).unwrap();
    assert_eq!(bench.state.next_event(), None);
}
