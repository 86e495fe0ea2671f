//! Requests in the words of the protocol.

use prost::Message as _;
use rocketmq_proto::v2::{self, settings::PubSub, telemetry_command::Command};

use crate::service::tests::dice::{Dice, TOPICS};

impl Dice<'_> {
    fn message(&mut self) -> v2::Message {
        let topic = self.of(&TOPICS);
        let half = topic == "half" || self.once_in(20);
        v2::Message {
            topic: self.maybe(|it| v2::Resource {
                resource_namespace: String::new(),
                name: it.name(&[topic]),
            }),
            user_properties: self.properties(),
            system_properties: self.maybe(|it| v2::SystemProperties {
                tag: it.rarely(|it| it.name(&["a", "b"])),
                keys: it
                    .rarely(|it| it.some(3, |it| it.name(&["k"])))
                    .unwrap_or_default(),
                message_id: format!("m{}-{}", it.byte(), it.name(&["x"])),
                body_encoding: it.kind(3),
                message_type: if half { 4 } else { it.kind(7) },
                born_timestamp: it.maybe(Self::time),
                born_host: it.name(&["h", ""]),
                delivery_timestamp: (topic == "delay" || it.once_in(20)).then(|| it.time()),
                message_group: (topic == "fifo" || it.once_in(20)).then(|| it.name(&["m", "n"])),
                trace_context: it.rarely(|it| it.name(&["00-1-1-01"])),
                orphaned_transaction_recovery_duration: it.rarely(Self::duration),
                lite_topic: (topic == "lite").then(|| it.name(&["l"])),
                priority: (topic == "first" || it.once_in(20)).then(|| it.small()),
                queue_id: it.small(),
                receipt_handle: it.rarely(|it| it.name(&["0"])),
                ..Default::default()
            }),
            body: vec![7; self.of(&[16, 1, 200, 2000, 0])].into(),
        }
    }

    fn settings(&mut self) -> v2::Settings {
        let publishes = self.once_in(3);
        v2::Settings {
            client_type: self.maybe(|it| {
                if publishes {
                    1
                } else {
                    it.of(&[2, 3, 2, 5, 0, 99])
                }
            }),
            access_point: self.endpoints(),
            request_timeout: self.maybe(Self::duration),
            pub_sub: self.maybe(|it| match publishes {
                true => PubSub::Publishing(v2::Publishing {
                    topics: it.some(4, Self::topic).into_iter().flatten().collect(),
                    max_body_size: it.small(),
                    validate_message_type: it.once_in(2),
                }),
                false => PubSub::Subscription(v2::Subscription {
                    group: it.group(),
                    subscriptions: it.some(3, |it| v2::SubscriptionEntry {
                        topic: it.topic(),
                        expression: it.filter(),
                    }),
                    receive_batch_size: it.maybe(Self::small),
                    long_polling_timeout: it.maybe(Self::duration),
                    ..Default::default()
                }),
            }),
            ..Default::default()
        }
    }

    fn command(&mut self) -> v2::TelemetryCommand {
        let nonce = String::new();
        let command = match self.below(16) {
            0..12 => Command::Settings(self.settings()),
            12 => Command::ThreadStackTrace(v2::ThreadStackTrace {
                nonce,
                thread_stack_trace: self.maybe(|it| it.name(&["main"])),
            }),
            13 => Command::VerifyMessageResult(v2::VerifyMessageResult { nonce }),
            14 => {
                Command::RecoverOrphanedTransactionCommand(v2::RecoverOrphanedTransactionCommand {
                    message: self.maybe(Self::message),
                    transaction_id: nonce,
                })
            }
            _ => Command::ReconnectEndpointsCommand(v2::ReconnectEndpointsCommand { nonce }),
        };
        v2::TelemetryCommand {
            status: self.rarely(|it| v2::Status {
                code: it.small(),
                message: it.name(&["OK"]),
            }),
            command: self.maybe(|_| command),
        }
    }

    /// The message of a request, in the words of the protocol.
    pub(super) fn request(&mut self, method: &str) -> Vec<u8> {
        match method {
            "QueryRoute" => v2::QueryRouteRequest {
                topic: self.topic(),
                endpoints: self.endpoints(),
            }
            .encode_to_vec(),
            "Heartbeat" => v2::HeartbeatRequest {
                group: self.group(),
                client_type: self.kind(6),
            }
            .encode_to_vec(),
            "SendMessage" => {
                let mut messages = vec![self.message()];
                if self.once_in(6) {
                    messages = self.some(3, |_| messages[0].clone());
                }
                v2::SendMessageRequest { messages }.encode_to_vec()
            }
            "QueryAssignment" => v2::QueryAssignmentRequest {
                topic: self.topic(),
                group: self.group(),
                endpoints: self.endpoints(),
            }
            .encode_to_vec(),
            "ReceiveMessage" => v2::ReceiveMessageRequest {
                group: {
                    self.asked = self.group();
                    self.asked.clone()
                },
                message_queue: self.queue(),
                filter_expression: self.filter(),
                batch_size: self.of(&[16, 1, 32, 2, 0, -1, i32::MAX]),
                invisible_duration: self.maybe(Self::duration),
                auto_renew: self.once_in(4),
                long_polling_timeout: self.maybe(Self::duration),
                attempt_id: self.rarely(|it| it.name(&["1", "2"])),
            }
            .encode_to_vec(),
            "AckMessage" => {
                let receipts = self.some(6, Self::receipt);
                let first = receipts.first().cloned().unwrap_or_default();
                v2::AckMessageRequest {
                    group: first.group,
                    topic: first.topic,
                    entries: receipts
                        .into_iter()
                        .map(|receipt| v2::AckMessageEntry {
                            receipt_handle: receipt.handle,
                            ..Default::default()
                        })
                        .collect(),
                }
                .encode_to_vec()
            }
            "ForwardMessageToDeadLetterQueue" => {
                let receipt = self.receipt();
                v2::ForwardMessageToDeadLetterQueueRequest {
                    group: receipt.group,
                    topic: receipt.topic,
                    receipt_handle: receipt.handle,
                    delivery_attempt: self.small(),
                    ..Default::default()
                }
                .encode_to_vec()
            }
            "EndTransaction" => v2::EndTransactionRequest {
                topic: self.resource(&["half", "half", "t"]),
                transaction_id: {
                    let seen = self.seen;
                    self.known(&seen.transactions)
                },
                resolution: self.kind(3),
                source: self.kind(3),
                ..Default::default()
            }
            .encode_to_vec(),
            "Telemetry" => self.command().encode_to_vec(),
            "NotifyClientTermination" => v2::NotifyClientTerminationRequest {
                group: self.group(),
            }
            .encode_to_vec(),
            "ChangeInvisibleDuration" => {
                let receipt = self.receipt();
                v2::ChangeInvisibleDurationRequest {
                    group: receipt.group,
                    topic: receipt.topic,
                    receipt_handle: receipt.handle,
                    invisible_duration: self.maybe(Self::duration),
                    ..Default::default()
                }
                .encode_to_vec()
            }
            "RecallMessage" => v2::RecallMessageRequest {
                topic: self.resource(&["delay", "delay", "t"]),
                recall_handle: {
                    let seen = self.seen;
                    self.known(&seen.recalls)
                },
            }
            .encode_to_vec(),
            "SyncLiteSubscription" => v2::SyncLiteSubscriptionRequest {
                action: self.kind(5),
                topic: self.topic(),
                group: self.group(),
                lite_topic_set: self.some(3, |it| it.name(&["l"])),
                ..Default::default()
            }
            .encode_to_vec(),
            // Not served: any bytes will do.
            _ => self.some(64, Self::byte),
        }
    }
}
