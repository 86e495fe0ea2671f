//! What a receive may ask for, and what it gets.

use rocketmq_proto::v2::{Code, FilterType};

use crate::state::{
    Ask, GroupConfig, Limits, TopicType,
    tests::bench::{Bench, LEASE, code, draft, ids, seconds},
};

#[test]
fn neither_invisible_duration_nor_auto_renew_is_illegal() {
    let mut bench = Bench::new();
    let ask = Ask {
        invisible: None,
        ..bench.ask("a")
    };
    assert_eq!(code(bench.receive_as(ask)), Code::IllegalInvisibleTime);
}

#[test]
fn an_invisible_duration_outside_of_10_seconds_to_12_hours_is_illegal() {
    let mut bench = Bench::new();
    for (invisible, legal) in [
        (9_999, false),
        (10_000, true),
        (12 * 3_600_000, true),
        (12 * 3_600_000 + 1, false),
    ] {
        let invisible = Some(std::time::Duration::from_millis(invisible));
        let ask = Ask {
            invisible,
            ..bench.ask("a")
        };
        assert_eq!(bench.receive_as(ask).is_ok(), legal, "{invisible:?}");
    }
}

#[test]
fn at_most_32_messages_come_at_once() {
    let mut bench = Bench::new();
    (0..70).for_each(|i| bench.put(&format!("m{i}")));
    let ask = Ask {
        batch: 1000,
        ..bench.ask("a")
    };
    assert_eq!(bench.receive_as(ask).unwrap().len(), 32);
    assert_eq!(bench.receive("b").len(), 32);
    assert_eq!(bench.receive("a").len(), 6);
}

#[test]
fn a_negative_batch_is_an_error_and_an_empty_one_gives_nothing() {
    let mut bench = Bench::new();
    bench.put("m");
    let ask = Ask {
        batch: -1,
        ..bench.ask("a")
    };
    assert_eq!(code(bench.receive_as(ask)), Code::InternalServerError);
    let ask = Ask {
        batch: 0,
        ..bench.ask("a")
    };
    assert!(bench.receive_as(ask).unwrap().is_empty());
}

#[test]
fn a_tag_filter_passes_over_what_it_does_not_want() {
    let mut bench = Bench::new();
    for (id, tag) in [
        ("m1", Some("a")),
        ("m2", Some("b")),
        ("m3", None),
        ("m4", Some("A")),
    ] {
        let tag = tag.map(str::to_owned);
        bench
            .send(crate::state::Draft {
                tag,
                ..draft("t", id)
            })
            .unwrap();
    }
    let ask = Ask {
        filter: Some((FilterType::Tag, " a || c ".to_owned())),
        ..bench.ask("a")
    };
    assert_eq!(ids(&bench.receive_as(ask).unwrap()), ["m1"]);
    assert!(
        bench.receive("b").is_empty(),
        "what was passed over does not come back"
    );
}

#[test]
fn a_star_wants_everything_and_two_bars_nothing_legal() {
    let mut bench = Bench::new();
    bench.put("m");
    let ask = Ask {
        filter: Some((FilterType::Tag, "||".to_owned())),
        ..bench.ask("a")
    };
    assert_eq!(code(bench.receive_as(ask)), Code::IllegalFilterExpression);
    let ask = Ask {
        filter: Some((FilterType::Tag, "*".to_owned())),
        ..bench.ask("a")
    };
    assert_eq!(ids(&bench.receive_as(ask).unwrap()), ["m"]);
}

#[test]
fn two_groups_each_get_every_message() {
    let mut bench = Bench::new();
    bench.state.create_group("h", GroupConfig::new()).unwrap();
    bench.put("m");
    let ask = Ask {
        group: "h".to_owned(),
        ..bench.ask("a")
    };
    assert_eq!(ids(&bench.receive("a")), ["m"]);
    assert_eq!(ids(&bench.receive_as(ask).unwrap()), ["m"]);
}

#[test]
fn a_new_group_reads_a_young_topic_from_the_start() {
    let mut bench = Bench::new();
    bench.put_all(&["m1", "m2"]);
    assert_eq!(ids(&bench.receive("a")), ["m1", "m2"]);
}

#[test]
fn a_new_group_starts_at_the_end_of_an_old_topic() {
    let limits = Limits {
        retained_messages: 2,
        ..Limits::default()
    };
    let mut bench = Bench::with(GroupConfig::new(), TopicType::Normal, limits);
    bench.put_all(&["m1", "m2", "m3"]);
    assert!(bench.receive("a").is_empty());
    bench.put("m4");
    assert_eq!(ids(&bench.receive("a")), ["m4"]);
}

#[test]
fn nothing_that_a_group_still_needs_is_forgotten() {
    let limits = Limits {
        retained_messages: 2,
        ..Limits::default()
    };
    let mut bench = Bench::with(GroupConfig::new(), TopicType::Normal, limits);
    bench.receive("a");
    (0..10).for_each(|i| bench.put(&format!("m{i}")));
    let held = bench.receive("a");
    assert_eq!(held.len(), 10);
    held[1..].iter().for_each(|d| bench.ack(&d.handle).unwrap());
    bench.put("last");
    bench.pass(LEASE);
    assert_eq!(ids(&bench.receive("b")), ["m0", "last"]);
}

#[test]
fn a_poll_waits_between_5_and_20_seconds_and_no_longer_than_the_call() {
    let mut bench = Bench::new();
    let mut wait = |asked: u64, remaining: u64| {
        let (asked, remaining) = (Some(seconds(asked)), Some(seconds(remaining)));
        let ask = Ask {
            long_poll: asked,
            remaining,
            ..bench.ask("a")
        };
        bench.state.open_poll(ask).map(|poll| poll.wait)
    };
    assert_eq!(wait(1, 30).unwrap(), seconds(5));
    assert_eq!(wait(10, 30).unwrap(), seconds(10));
    assert_eq!(wait(60, 30).unwrap(), seconds(20));
    assert_eq!(wait(20, 6).unwrap(), seconds(6));
    assert_eq!(wait(20, 4).unwrap_err().code, Code::IllegalPollingTime);
}
