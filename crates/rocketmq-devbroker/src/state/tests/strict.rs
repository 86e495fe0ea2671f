//! Unknown names: refused by a strict broker, created by another.

use rocketmq_proto::v2::{ClientType, Code};

use crate::state::{
    Ask, Limits, Role, State, Timestamp,
    tests::bench::{Bench, draft, ids},
};

fn consumer(kind: ClientType, group: &str) -> Role {
    Role::Consumer {
        kind,
        group: group.to_owned(),
        subscriptions: Vec::new(),
    }
}

#[test]
fn a_strict_broker_refuses_unknown_topics_and_groups() {
    let mut bench = Bench::new();
    let now = bench.now;
    assert_eq!(
        bench.state.open_topic("nosuch").unwrap_err().code,
        Code::TopicNotFound
    );
    let refusal = bench.state.assignments("nosuch", "g").unwrap_err();
    assert_eq!(refusal.code, Code::TopicNotFound);
    let refusal = bench.send(draft("nosuch", "m")).unwrap_err();
    assert_eq!(refusal.code, Code::MessagePropertyConflictWithType);
    assert!(
        refusal.message.contains("UNSPECIFIED"),
        "{}",
        refusal.message
    );
    let role = consumer(ClientType::PushConsumer, "nosuch");
    let refusal = bench.state.register(now, "c", role, true).unwrap_err();
    assert_eq!(refusal.message, "group not found: nosuch");
    let refusal = bench.state.heartbeat("a", "nosuch").unwrap_err();
    assert_eq!(refusal.code, Code::IllegalConsumerGroup);
}

#[test]
fn a_lenient_broker_creates_them() {
    let mut state = State::new(false, Limits::default());
    let now = Timestamp::from_millis(1);
    assert_eq!(state.open_topic("t").unwrap().queue_count(), 4);
    state
        .register(now, "c", consumer(ClientType::PushConsumer, "g"), true)
        .unwrap();
    state.send(now, vec![draft("u", "m")]).unwrap();
    let ask = Ask {
        client: "c".to_owned(),
        group: "h".to_owned(),
        topic: "u".to_owned(),
        batch: 1,
        auto_renew: true,
        ..Ask::default()
    };
    let poll = state.open_poll(ask).unwrap();
    assert_eq!(ids(&state.receive(now, &poll)), ["m"]);
}

#[test]
fn a_lenient_broker_does_not_create_without_end() {
    let mut state = State::new(false, Limits::default());
    let refusal = (0..20_000)
        .find_map(|i| state.open_topic(&format!("t{i}")).err())
        .unwrap();
    assert_eq!(refusal.code, Code::TopicNotFound);
    state.open_topic("t0").unwrap();
}

#[test]
fn illegal_names_are_never_created() {
    let mut state = State::new(false, Limits::default());
    assert_eq!(
        state.open_topic("a b").unwrap_err().code,
        Code::IllegalTopic
    );
    for group in ["", "a b", "DEFAULT_CONSUMER"] {
        let role = consumer(ClientType::PushConsumer, group);
        let refusal = state
            .register(Timestamp::default(), "c", role, true)
            .unwrap_err();
        assert_eq!(refusal.code, Code::IllegalConsumerGroup, "{group:?}");
    }
}

#[test]
fn a_client_must_send_settings_first() {
    let mut bench = Bench::new();
    let ask = bench.ask("stranger");
    assert_eq!(
        bench.receive_as(ask).unwrap_err().code,
        Code::InternalServerError
    );
    let refusal = bench.state.heartbeat("stranger", "g").unwrap_err();
    assert_eq!(refusal.code, Code::UnrecognizedClientType);
    let refusal = bench
        .state
        .terminate(bench.now, "stranger", "g")
        .unwrap_err();
    assert_eq!(refusal.code, Code::UnrecognizedClientType);
    bench.state.heartbeat("a", "g").unwrap();
}

#[test]
fn a_client_whose_stream_broke_is_known_for_two_minutes() {
    let mut bench = Bench::new();
    bench.state.stream_ended(bench.now, "a");
    assert_eq!(bench.state.connected_clients().len(), 1);
    bench.state.heartbeat("a", "g").unwrap();
    bench.pass(std::time::Duration::from_secs(120));
    let role = consumer(ClientType::PushConsumer, "g");
    bench.state.register(bench.now, "b", role, true).unwrap();
    assert!(bench.state.heartbeat("a", "g").is_err());
}

#[test]
fn a_strict_broker_wants_a_deadline_on_every_receive() {
    let mut bench = Bench::new();
    let ask = Ask {
        remaining: None,
        ..bench.ask("a")
    };
    assert_eq!(
        bench.receive_as(ask).unwrap_err().code,
        Code::InternalServerError
    );
}

#[test]
fn an_ordered_group_is_assigned_every_queue_and_another_one_for_all() {
    let mut bench = Bench::fifo();
    bench
        .state
        .create_topic("u", crate::state::TopicType::Fifo, 3)
        .unwrap();
    assert_eq!(bench.state.assignments("u", "g").unwrap(), [0, 1, 2]);
    bench
        .state
        .create_group("h", crate::state::GroupConfig::new())
        .unwrap();
    assert_eq!(bench.state.assignments("u", "h").unwrap(), [-1]);
    assert_eq!(bench.state.assignments("u", "nosuch").unwrap(), [-1]);
}
