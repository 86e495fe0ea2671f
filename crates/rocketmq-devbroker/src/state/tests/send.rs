//! What is taken, what is refused, and what is delayed.

use std::collections::BTreeMap;

use bytes::Bytes;
use rocketmq_proto::v2::{Code, MessageType};

use crate::state::{
    Draft, GroupConfig, Limits, TopicType,
    tests::bench::{Bench, draft, ids, seconds},
};

fn of_type(kind: TopicType) -> Bench {
    Bench::with(GroupConfig::new(), kind, Limits::default())
}

fn refused(change: impl FnOnce(&mut Draft)) -> Code {
    let mut draft = draft("t", "m");
    change(&mut draft);
    Bench::new().send(draft).unwrap_err().code
}

fn taken(change: impl FnOnce(&mut Draft)) {
    let mut draft = draft("t", "m");
    change(&mut draft);
    Bench::new().send(draft).unwrap();
}

#[test]
fn a_batch_gets_one_answer_and_is_stored_whole() {
    let mut bench = Bench::new();
    let drafts = ["m1", "m2", "m3"].map(|id| draft("t", id)).to_vec();
    let sent = bench.state.send(bench.now, drafts).unwrap();
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0].offset, 0);
    assert_eq!(ids(&bench.receive("a")), ["m1", "m2", "m3"]);
}

#[test]
fn a_batch_of_nothing_or_of_two_topics_is_corrupted() {
    let mut bench = Bench::new();
    assert_eq!(
        bench.state.send(bench.now, vec![]).unwrap_err().code,
        Code::MessageCorrupted
    );
    let drafts = vec![draft("t", "m1"), draft("u", "m2")];
    assert_eq!(
        bench.state.send(bench.now, drafts).unwrap_err().code,
        Code::MessageCorrupted
    );
    assert!(bench.receive("a").is_empty());
}

#[test]
fn a_message_must_be_of_the_type_of_its_topic() {
    let plain = draft("t", "m");
    let group = Draft {
        message_group: Some("g".to_owned()),
        ..plain.clone()
    };
    let later = Draft {
        deliver_at: Some(plain.born_at),
        ..plain.clone()
    };
    let half = Draft {
        declared: MessageType::Transaction,
        ..plain.clone()
    };
    let cases = [
        (TopicType::Normal, &plain, true),
        (TopicType::Normal, &group, false),
        (TopicType::Normal, &later, false),
        (TopicType::Normal, &half, false),
        (TopicType::Fifo, &plain, false),
        (TopicType::Fifo, &group, true),
        (TopicType::Delay, &plain, false),
        (TopicType::Delay, &later, true),
        (TopicType::Mixed, &group, true),
        (TopicType::Mixed, &later, true),
    ];
    for (i, (kind, draft, fits)) in cases.into_iter().enumerate() {
        match of_type(kind).send(draft.clone()) {
            Ok(_) => assert!(fits, "case {i}"),
            Err(refusal) => {
                assert!(!fits, "case {i}");
                assert_eq!(refusal.code, Code::MessagePropertyConflictWithType);
            }
        }
    }
}

#[test]
fn what_counts_is_what_a_message_carries_not_the_type_it_claims() {
    let claims = |kind| Draft {
        declared: kind,
        ..draft("t", "m")
    };
    assert!(
        of_type(TopicType::Normal)
            .send(claims(MessageType::Delay))
            .is_ok()
    );
    assert!(
        of_type(TopicType::Normal)
            .send(claims(MessageType::Fifo))
            .is_ok()
    );
    assert!(
        of_type(TopicType::Fifo)
            .send(claims(MessageType::Fifo))
            .is_err()
    );
}

#[test]
fn the_body_is_neither_empty_nor_over_4_mib() {
    assert_eq!(refused(|d| d.body = Bytes::new()), Code::MessageBodyEmpty);
    taken(|d| d.body = vec![0; 4 << 20].into());
    assert_eq!(
        refused(|d| d.body = vec![0; (4 << 20) + 1].into()),
        Code::MessageBodyTooLarge
    );
}

#[test]
fn names_keys_and_tags_are_checked() {
    assert_eq!(refused(|d| d.topic = String::new()), Code::IllegalTopic);
    assert_eq!(refused(|d| d.topic = "a b".to_owned()), Code::IllegalTopic);
    assert_eq!(refused(|d| d.topic = "a.b".to_owned()), Code::IllegalTopic);
    assert_eq!(refused(|d| d.topic = "a".repeat(128)), Code::IllegalTopic);
    assert_eq!(
        refused(|d| d.topic = "TBW102".to_owned()),
        Code::IllegalTopic
    );
    assert_eq!(
        refused(|d| d.topic = "RMQ_SYS_TRACE_TOPIC".to_owned()),
        Code::IllegalTopic
    );
    assert_eq!(refused(|d| d.id = " ".to_owned()), Code::IllegalMessageId);
    assert_eq!(
        refused(|d| d.tag = Some(" ".to_owned())),
        Code::IllegalMessageTag
    );
    assert_eq!(
        refused(|d| d.tag = Some("a|b".to_owned())),
        Code::IllegalMessageTag
    );
    assert_eq!(
        refused(|d| d.tag = Some("a\u{1}".to_owned())),
        Code::IllegalMessageTag
    );
    assert_eq!(
        refused(|d| d.keys = vec![" ".to_owned()]),
        Code::IllegalMessageKey
    );
    assert_eq!(
        refused(|d| d.keys = vec!["\u{7f}".to_owned()]),
        Code::IllegalMessageKey
    );
    let group = |text: &str| Some(text.to_owned());
    assert_eq!(
        refused(|d| d.message_group = group(" ")),
        Code::IllegalMessageGroup
    );
    assert_eq!(
        refused(|d| d.message_group = group(&"g".repeat(64))),
        Code::IllegalMessageGroup
    );
    taken(|d| d.message_group = group(&"g".repeat(63)));
    taken(|d| d.keys = vec!["a b".to_owned()]);
}

#[test]
fn properties_are_checked_for_names_characters_and_size() {
    let with = |key: &str, value: &str| {
        let properties = BTreeMap::from([(key.to_owned(), value.to_owned())]);
        move |d: &mut Draft| d.properties = properties
    };
    assert_eq!(
        refused(with("UNIQ_KEY", "v")),
        Code::IllegalMessagePropertyKey
    );
    assert_eq!(
        refused(with("CORRELATION_ID", "v")),
        Code::IllegalMessagePropertyKey
    );
    assert_eq!(
        refused(with("__CRC32#", "v")),
        Code::IllegalMessagePropertyKey
    );
    assert_eq!(
        refused(with("k\u{2}", "v")),
        Code::IllegalMessagePropertyKey
    );
    assert_eq!(refused(with("k", "\u{2}")), Code::IllegalMessagePropertyKey);
    assert_eq!(
        refused(with("k", &"v".repeat(16 << 10))),
        Code::MessagePropertiesTooLarge
    );
    taken(with("k", &"v".repeat((16 << 10) - 1)));
    taken(with("correlation_id", "v"));
    taken(with("k", ""));
    let many = |n: usize| (0..n).map(|i| (format!("k{i}"), "v".to_owned())).collect();
    assert_eq!(
        refused(|d| d.properties = many(129)),
        Code::MessagePropertiesTooLarge
    );
    taken(|d| d.properties = many(128));
}

#[test]
fn a_delayed_message_comes_when_it_is_due_and_not_before() {
    let mut bench = of_type(TopicType::Delay);
    let deliver_at = Some(bench.now.plus(seconds(3)));
    let sent = bench
        .send(Draft {
            deliver_at,
            ..draft("t", "m")
        })
        .unwrap();
    assert!(!sent.recall_handle.is_empty());
    assert_eq!(bench.state.next_event(), deliver_at);
    bench.pass(seconds(2));
    assert!(bench.receive("a").is_empty());
    bench.pass(seconds(1));
    assert!(bench.state.take_ready().contains("t"));
    assert_eq!(ids(&bench.receive("a")), ["m"]);
}

#[test]
fn a_delivery_time_in_the_past_is_now() {
    let mut bench = of_type(TopicType::Delay);
    let deliver_at = Some(crate::state::Timestamp::default());
    let sent = bench
        .send(Draft {
            deliver_at,
            ..draft("t", "m")
        })
        .unwrap();
    assert_eq!(sent.recall_handle, "");
    assert_eq!(ids(&bench.receive("a")), ["m"]);
}

#[test]
fn a_delay_of_more_than_a_day_is_refused() {
    let mut bench = of_type(TopicType::Delay);
    let deliver_at = Some(bench.now.plus(seconds(24 * 3600 + 1)));
    let refusal = bench
        .send(Draft {
            deliver_at,
            ..draft("t", "m")
        })
        .unwrap_err();
    assert_eq!(refusal.code, Code::IllegalDeliveryTime);
}

#[test]
fn a_recalled_message_never_comes_and_may_be_recalled_again_until_its_time() {
    let mut bench = of_type(TopicType::Delay);
    let deliver_at = Some(bench.now.plus(seconds(8)));
    let handle = bench
        .send(Draft {
            deliver_at,
            ..draft("t", "m")
        })
        .unwrap()
        .recall_handle;
    let recall = |bench: &mut Bench, topic: &str, handle: &str| {
        let answer = bench.state.recall(bench.now, topic, handle);
        answer.map_err(|refusal| refusal.code)
    };
    let refused = Err(Code::InternalServerError);
    bench.state.add_topic("u", TopicType::Delay, 1);
    assert_eq!(recall(&mut bench, "u", &handle), refused, "another topic");
    for _ in 0..2 {
        assert_eq!(recall(&mut bench, "t", &handle), Ok("m".to_owned()));
    }
    assert_eq!(recall(&mut bench, "t", "garbage"), refused);
    bench.pass(seconds(10));
    assert!(bench.receive("a").is_empty());
    assert_eq!(recall(&mut bench, "t", &handle), refused);
}

#[test]
fn a_full_store_refuses_until_something_is_consumed() {
    let limits = Limits {
        max_stored_bytes: 2000,
        retained_messages: 0,
        ..Limits::default()
    };
    let mut bench = Bench::with(GroupConfig::new(), TopicType::Normal, limits);
    bench.receive("a");
    bench.put_all(&["m1", "m2", "m3"]);
    let refusal = bench.send(draft("t", "m4")).unwrap_err();
    assert_eq!(refusal.code, Code::TooManyRequests);
    let held = bench.receive("a");
    held.iter().for_each(|d| bench.ack(&d.handle).unwrap());
    bench.put("m5");
    assert_eq!(ids(&bench.receive("a")), ["m5"]);
}

#[test]
fn what_is_counted_as_stored_is_what_is_stored() {
    let limits = Limits {
        retained_messages: 0,
        ..Limits::default()
    };
    let mut bench = Bench::with(GroupConfig::new(), TopicType::Normal, limits);
    bench.receive("a");
    for round in 0..3 {
        // Neither the property nor the blanks are stored.
        let dropped = Draft {
            keys: vec!["a  b".to_owned()],
            properties: [("without-value".to_owned(), String::new())].into(),
            ..draft("t", &format!("m{round}"))
        };
        bench.send(dropped).unwrap();
        let held = bench.receive("a");
        held.iter().for_each(|d| bench.ack(&d.handle).unwrap());
    }
    bench.state.make_room(&[]).unwrap();
    let census = bench.state.census(bench.now);
    assert_eq!(census.stored_bytes, census.counted_bytes);
}

#[test]
fn a_send_that_only_seems_to_fail_is_stored() {
    let mut bench = Bench::new();
    let faults = &mut bench.state.faults;
    faults.sends_after_storing.push_back(Code::ProxyTimeout);
    let refusal = bench.send(draft("t", "m1")).unwrap_err();
    assert_eq!(refusal.code, Code::ProxyTimeout);
    bench.put("m2");
    assert_eq!(ids(&bench.receive("a")), ["m1", "m2"]);
}

#[test]
fn messages_of_one_group_go_to_one_queue() {
    let mut bench = Bench::new();
    bench.state.create_topic("u", TopicType::Fifo, 8).unwrap();
    for i in 0..20 {
        let message_group = Some(format!("g{}", i % 2));
        let draft = Draft {
            message_group,
            ..draft("u", &format!("m{i}"))
        };
        bench.send(draft).unwrap();
    }
    for group in ["g0", "g1"] {
        let stored = bench.state.messages("u");
        let mine = stored
            .iter()
            .filter(|m| m.message_group.as_deref() == Some(group));
        let queues: std::collections::BTreeSet<u32> = mine.map(|m| m.queue).collect();
        assert_eq!(queues.len(), 1);
    }
}
