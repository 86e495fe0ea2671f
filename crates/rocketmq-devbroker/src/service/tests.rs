//! Random and mutated requests: no panic, no hang, nothing kept without bound.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use hyper::body::{Body, Frame};
use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};
use rocketmq_proto::v2::messaging_service_server::MessagingServiceServer;
use tower_service::Service as _;

use crate::{
    core::Core,
    service::Service,
    serving::Access,
    state::{GroupConfig, Limits, State, TopicType},
};

const CASES: u32 = 3_000;
const MAX_STORED_BYTES: usize = 1 << 20;
/// Far beyond what any call may take; the clock is paused.
const NEVER: std::time::Duration = std::time::Duration::from_secs(3600);

const METHODS: [&str; 17] = [
    "QueryRoute",
    "Heartbeat",
    "SendMessage",
    "QueryAssignment",
    "ReceiveMessage",
    "AckMessage",
    "ForwardMessageToDeadLetterQueue",
    "PullMessage",
    "UpdateOffset",
    "GetOffset",
    "QueryOffset",
    "EndTransaction",
    "Telemetry",
    "NotifyClientTermination",
    "ChangeInvisibleDuration",
    "RecallMessage",
    "SyncLiteSubscription",
];

/// A body of one piece.
struct Once(Option<Bytes>);

impl Body for Once {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.take().map(|bytes| Ok(Frame::data(bytes))))
    }
}

fn core() -> Arc<Core> {
    let limits = Limits {
        max_stored_bytes: MAX_STORED_BYTES,
        ..Limits::default()
    };
    let mut state = State::new(false, limits);
    state.create_topic("t", TopicType::Mixed, 2).unwrap();
    state.create_group("g", GroupConfig::new()).unwrap();
    let endpoints = rocketmq_proto::v2::Endpoints::default();
    Arc::new(Core::new(state, endpoints, Access::default(), None))
}

/// Fields of the protocol's messages, at random: numbers, texts, and messages of the same.
fn fields() -> impl Strategy<Value = Vec<u8>> {
    let text = prop_oneof![
        Just(b"t".to_vec()),
        Just(b"g".to_vec()),
        Just(b"0-0-0-1-ffffffffff".to_vec()),
        proptest::collection::vec(any::<u8>(), 0..12),
    ];
    let field = |number: u8, content: Vec<u8>| {
        let mut bytes = vec![number << 3 | 2, u8::try_from(content.len()).unwrap_or(127)];
        bytes.extend(content);
        bytes
    };
    let number = (1_u8..15, any::<u8>()).prop_map(|(number, value)| vec![number << 3, value & 127]);
    let leaf = prop_oneof![
        number,
        (1_u8..15, text).prop_map(move |(number, text)| field(number, text)),
    ];
    leaf.prop_recursive(4, 24, 6, move |inner| {
        (1_u8..15, proptest::collection::vec(inner, 0..6))
            .prop_map(move |(number, parts)| field(number, parts.concat()))
    })
}

fn frame(message: &[u8]) -> Bytes {
    let length = u32::try_from(message.len()).unwrap_or_default();
    let mut bytes = vec![0];
    bytes.extend(length.to_be_bytes());
    bytes.extend(message);
    bytes.into()
}

async fn call(core: &Arc<Core>, method: &str, body: Bytes) {
    let mut service = MessagingServiceServer::new(Service::new(Arc::clone(core)));
    let request = http::Request::post(format!("/apache.rocketmq.v2.MessagingService/{method}"))
        .header("content-type", "application/grpc")
        .header("x-mq-client-id", "c")
        .header("grpc-timeout", "30S")
        .body(Once(Some(body)))
        .unwrap();
    let mut answer = service.call(request).await.unwrap().into_body();
    let mut frames = 0;
    while let Some(frame) = std::future::poll_fn(|cx| Pin::new(&mut answer).poll_frame(cx)).await {
        frames += 1;
        assert!(frames < 1000, "an answer without end");
        if frame.is_err() {
            break;
        }
    }
}

#[test]
fn no_request_makes_the_service_panic_hang_or_grow() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    let _entered = runtime.enter();
    let core = core();
    let requests = (
        proptest::sample::select(&METHODS[..]),
        proptest::collection::vec(fields(), 0..6),
        proptest::option::weighted(0.2, (any::<prop::sample::Index>(), any::<u8>())),
        proptest::bool::weighted(0.05),
    );
    let mut runner = TestRunner::new(Config {
        cases: CASES,
        failure_persistence: None,
        ..Config::default()
    });
    let checked = runner.run(&requests, |(method, fields, mutation, raw)| {
        let message = fields.concat();
        let mut body = if raw { message.into() } else { frame(&message) };
        if let (Some((index, value)), false) = (mutation, body.is_empty()) {
            let mut bytes = body.to_vec();
            *index.get_mut(&mut bytes) = value;
            body = bytes.into();
        }
        let call = tokio::time::timeout(NEVER, call(&core, method, body));
        let ended = runtime.block_on(call);
        prop_assert!(ended.is_ok(), "{} hangs", method);
        let stored = core.with(|state, _| state.stored_bytes());
        prop_assert!(stored <= MAX_STORED_BYTES);
        Ok(())
    });
    checked.unwrap();
}
