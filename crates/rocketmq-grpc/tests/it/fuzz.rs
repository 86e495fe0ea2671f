//! A client that is kept alive while a server answers it with nonsense: codes that nobody knows,
//! entries that are missing, fields that are absent or absurd, frames with flipped bits.

use std::time::Duration;

use proptest::{
    collection::vec,
    prelude::any,
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};
use rocketmq_grpc::{Client, Consumer, Message, Producer, ProducerConfig, Settlement};
use rocketmq_proto::v2::{self as pb, telemetry_command::Command};
use tokio::time::Instant;
use tonic::Status;

use crate::fake::{Fake, Item, TOPIC, consumer_config, message};

const CASES: u32 = 10_000;
/// Nothing takes longer, on the paused clock, whatever the server says.
const BOUND: Duration = Duration::from_secs(300);
/// Addresses that routes name, and what is none.
const HOSTS: [&str; 8] = ["fake", "a", "b", "", "a/b", "x y", "::1", "host\u{0}"];

/// Chooses by bytes; when they are used up, the first of everything.
struct Dice<'a>(std::slice::Iter<'a, u8>);

impl Dice<'_> {
    fn byte(&mut self) -> u8 {
        self.0.next().copied().unwrap_or(0)
    }

    fn below(&mut self, end: u8) -> u8 {
        self.byte() % end
    }

    fn often(&mut self) -> bool {
        self.below(4) != 3
    }

    fn maybe<T>(&mut self, make: impl FnOnce(&mut Self) -> T) -> Option<T> {
        self.often().then(|| make(self))
    }

    fn some<T>(&mut self, max: u8, mut make: impl FnMut(&mut Self) -> T) -> Vec<T> {
        (0..self.below(max + 1)).map(|_| make(self)).collect()
    }

    fn int(&mut self) -> i64 {
        match self.below(8) {
            0 => 0,
            1 => -1,
            2 => i64::MAX,
            3 => i64::MIN,
            4 => i64::from(i32::MAX) + 1,
            _ => i64::from(self.byte()),
        }
    }

    #[expect(clippy::cast_possible_truncation, reason = "any number will do")]
    fn small(&mut self) -> i32 {
        self.int() as i32
    }

    fn text(&mut self) -> String {
        let odd = ["", "0", "h-1", "\u{0}\n", "ä\u{202e}", "%DLQ%x", "TAGS"];
        odd[usize::from(self.below(7))].to_owned()
    }

    fn code(&mut self) -> i32 {
        let codes = [
            20000, 20000, 30000, 40000, 40013, 40015, 40100, 40300, 40401, 40402, 40403, 42900,
            50001, 50400, 50500, 60000, 0, -1, 99999, 50999,
        ];
        codes[usize::from(self.below(20))]
    }

    fn status(&mut self) -> Option<pb::Status> {
        self.maybe(|it| pb::Status {
            code: it.code(),
            message: it.text(),
        })
    }

    fn answer<T>(&mut self, make: impl FnOnce(&mut Self) -> T) -> Result<T, Status> {
        if self.often() {
            return Ok(make(self));
        }
        let code = tonic::Code::from_i32(i32::from(1 + self.below(16)));
        Err(Status::new(code, "scripted"))
    }

    fn duration(&mut self) -> prost_types::Duration {
        prost_types::Duration {
            seconds: self.int(),
            nanos: self.small(),
        }
    }

    fn time(&mut self) -> prost_types::Timestamp {
        prost_types::Timestamp {
            seconds: self.int(),
            nanos: self.small(),
        }
    }

    fn route(&mut self) -> pb::QueryRouteResponse {
        pb::QueryRouteResponse {
            status: self.status(),
            message_queues: self.some(3, |it| pb::MessageQueue {
                topic: None,
                id: it.small(),
                permission: it.small(),
                broker: it.maybe(|it| pb::Broker {
                    name: it.text(),
                    id: it.small().min(1),
                    endpoints: it.maybe(|it| pb::Endpoints {
                        scheme: it.small(),
                        addresses: it.some(2, |it| pb::Address {
                            host: HOSTS[usize::from(it.below(8))].to_owned(),
                            port: it.small(),
                        }),
                    }),
                }),
                accept_message_types: it.some(2, Self::small),
            }),
        }
    }

    fn sent(&mut self) -> pb::SendMessageResponse {
        pb::SendMessageResponse {
            status: self.status(),
            entries: self.some(2, |it| pb::SendResultEntry {
                status: it.status(),
                message_id: it.text(),
                transaction_id: it.text(),
                offset: it.int(),
                ..Default::default()
            }),
        }
    }

    fn acked(&mut self) -> pb::AckMessageResponse {
        pb::AckMessageResponse {
            status: self.status(),
            entries: self.some(3, |it| pb::AckMessageResultEntry {
                message_id: it.text(),
                receipt_handle: it.text(),
                status: it.status(),
            }),
        }
    }

    fn message(&mut self) -> pb::Message {
        pb::Message {
            topic: None,
            user_properties: self
                .some(2, |it| (it.text(), it.text()))
                .into_iter()
                .collect(),
            system_properties: self.maybe(|it| pb::SystemProperties {
                tag: it.maybe(Self::text),
                keys: it.some(2, Self::text),
                message_id: it.text(),
                body_digest: it.maybe(|it| pb::Digest {
                    r#type: it.small(),
                    checksum: it.text(),
                }),
                body_encoding: it.small(),
                message_type: it.small(),
                born_timestamp: it.maybe(Self::time),
                store_timestamp: it.maybe(Self::time),
                delivery_timestamp: it.maybe(Self::time),
                receipt_handle: it.maybe(Self::text),
                queue_id: it.small(),
                queue_offset: it.maybe(Self::int),
                delivery_attempt: it.maybe(Self::small),
                ..Default::default()
            }),
            body: self.some(20, Self::byte).into(),
        }
    }

    fn item(&mut self) -> Item {
        use pb::receive_message_response::Content;
        let content = self.maybe(|it| match it.below(4) {
            0 => Content::Status(it.status().unwrap_or_default()),
            1 => Content::DeliveryTimestamp(it.time()),
            _ => Content::Message(it.message()),
        });
        Item::Raw(Box::new(
            self.answer(|_| pb::ReceiveMessageResponse { content }),
        ))
    }

    fn settings(&mut self) -> pb::Settings {
        use pb::{retry_policy::Strategy, settings::PubSub};
        pb::Settings {
            client_type: self.maybe(Self::small),
            backoff_policy: self.maybe(|it| pb::RetryPolicy {
                max_attempts: it.small(),
                strategy: it.maybe(|it| {
                    if it.often() {
                        Strategy::CustomizedBackoff(pb::CustomizedBackoff {
                            next: it.some(3, |it| prost_types::Duration {
                                seconds: i64::from(it.below(2)),
                                nanos: it.small(),
                            }),
                        })
                    } else {
                        let odd = [0.0, -1.0, 2.0, f32::NAN, f32::INFINITY];
                        Strategy::ExponentialBackoff(pb::ExponentialBackoff {
                            initial: it.maybe(Self::duration),
                            max: Some(prost_types::Duration {
                                seconds: 2,
                                nanos: it.small(),
                            }),
                            multiplier: odd[usize::from(it.below(5))],
                        })
                    }
                }),
            }),
            pub_sub: self.maybe(|it| {
                if it.often() {
                    PubSub::Subscription(pb::Subscription {
                        fifo: it.maybe(|it| it.below(8) == 7),
                        receive_batch_size: it.maybe(Self::small),
                        long_polling_timeout: it.maybe(|it| prost_types::Duration {
                            seconds: i64::from(it.below(30)),
                            nanos: it.small(),
                        }),
                        ..Default::default()
                    })
                } else {
                    PubSub::Publishing(pb::Publishing {
                        max_body_size: it.small(),
                        validate_message_type: it.often(),
                        ..Default::default()
                    })
                }
            }),
            ..Default::default()
        }
    }

    fn command(&mut self) -> Option<Command> {
        let nonce = self.text();
        match self.below(12) {
            0..=3 => None,
            4..=6 => Some(Command::Settings(self.settings())),
            7 => Some(Command::PrintThreadStackTraceCommand(
                pb::PrintThreadStackTraceCommand { nonce },
            )),
            8 => Some(Command::VerifyMessageCommand(pb::VerifyMessageCommand {
                nonce,
                message: self.maybe(Self::message),
            })),
            9 => Some(Command::RecoverOrphanedTransactionCommand(
                pb::RecoverOrphanedTransactionCommand {
                    message: self.maybe(Self::message),
                    transaction_id: nonce,
                },
            )),
            10 => Some(Command::VerifyMessageResult(pb::VerifyMessageResult {
                nonce,
            })),
            _ if self.below(8) == 7 => Some(Command::ReconnectEndpointsCommand(
                pb::ReconnectEndpointsCommand { nonce },
            )),
            _ => None,
        }
    }
}

struct Alive {
    fake: Fake,
    producer: Producer,
    consumer: Consumer,
}

impl Alive {
    async fn start() -> Self {
        let fake = Fake::start();
        fake.state().backoff_ms = Some(1);
        let client = Client::with_connector(Fake::config(), fake.link.connector()).unwrap();
        let config = ProducerConfig::new().topic(TOPIC);
        Self {
            producer: client.producer(config).await.unwrap(),
            consumer: client.consumer(consumer_config()).await.unwrap(),
            fake,
        }
    }

    async fn suffer(&self, bytes: &[u8]) {
        let mut dice = Dice(bytes.iter());
        {
            let mut state = self.fake.state();
            state.sends = dice.some(3, |it| it.answer(Dice::sent)).into();
            state.acks = dice.some(2, |it| it.answer(Dice::acked)).into();
            state.changes = dice
                .some(2, |it| {
                    it.answer(|it| pb::ChangeInvisibleDurationResponse {
                        status: it.status(),
                        receipt_handle: it.text(),
                    })
                })
                .into();
            if dice.below(16) == 15 {
                state.routes = dice.some(2, |it| it.answer(Dice::route)).into();
                state.heartbeats = dice
                    .some(2, |it| {
                        it.answer(|it| pb::HeartbeatResponse {
                            status: it.status(),
                        })
                    })
                    .into();
            }
        }
        if let Some(command) = dice.command() {
            self.fake.command(&command);
        }
        if dice.below(64) == 63 {
            self.fake.link.corrupt(dice.byte());
        }
        self.fake.push(dice.some(4, Dice::item));

        let by = Instant::now() + BOUND;
        let sending = self.producer.send(Message::new(TOPIC, "x"));
        let sent = tokio::time::timeout_at(by, sending).await;
        drop(sent.expect("a send hangs"));
        // Perhaps there was nothing to receive.
        let receiving = self.consumer.receive(TOPIC, 4);
        let received = tokio::time::timeout(Duration::from_millis(1), receiving).await;
        for lease in received.into_iter().flatten().flatten() {
            let how = match dice.below(4) {
                0 => Settlement::HandBack,
                1 => Settlement::DeadLetter,
                _ => Settlement::Ack,
            };
            self.consumer.settle(lease, how);
        }
        assert!(self.fake.link.open() < 64, "connections pile up");
    }

    /// It works as before when the server has come to its senses.
    async fn recover(&self) {
        {
            let mut state = self.fake.state();
            state.sends.clear();
            state.acks.clear();
            state.changes.clear();
            state.routes.clear();
            state.heartbeats.clear();
            state.receives.clear();
            state.seen = Default::default();
        }
        self.fake.command(&Command::Settings(pb::Settings {
            backoff_policy: None,
            pub_sub: Some(pb::settings::PubSub::Subscription(pb::Subscription {
                fifo: Some(false),
                receive_batch_size: Some(32),
                ..Default::default()
            })),
            ..Default::default()
        }));
        self.fake.command(&Command::Settings(pb::Settings {
            pub_sub: Some(pb::settings::PubSub::Publishing(pb::Publishing {
                max_body_size: 1024,
                validate_message_type: false,
                ..Default::default()
            })),
            ..Default::default()
        }));
        let by = Instant::now() + BOUND;
        while let Err(error) = self.producer.send(Message::new(TOPIC, "x")).await {
            assert!(Instant::now() < by, "{error:?}");
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        loop {
            self.fake.push(vec![message("alive")]);
            let received = tokio::time::timeout_at(by, self.consumer.receive(TOPIC, 4)).await;
            let Ok(leases) = received.expect("nothing is received any more") else {
                continue;
            };
            for lease in leases {
                if lease.message().id == "alive" {
                    self.consumer.ack(lease).await.unwrap();
                    return;
                }
            }
        }
    }
}

#[test]
fn whatever_a_server_answers_the_client_neither_panics_nor_hangs_nor_piles_up() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    let alive = runtime.block_on(Alive::start());
    let config = Config {
        cases: CASES,
        failure_persistence: None,
        ..Config::default()
    };
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let cases = std::cell::Cell::new(0);
    TestRunner::new_with_rng(config, rng)
        .run(&vec(any::<u8>(), 0..160), |bytes| {
            runtime.block_on(async {
                alive.suffer(&bytes).await;
                cases.set(cases.get() + 1);
                if cases.get() % 250 == 0 {
                    alive.recover().await;
                }
            });
            Ok(())
        })
        .unwrap();
    runtime.block_on(alive.recover());
}
