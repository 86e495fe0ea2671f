//! Transactions over the wire.

use std::time::Duration;

use rocketmq_devbroker::{Code, DevBroker, TopicType};
use rocketmq_proto::v2::{self, telemetry_command::Command};

use crate::client::{Client, code, id, message, resource, system};

fn broker() -> DevBroker {
    DevBroker::builder()
        .topic("t", TopicType::Transaction)
        .group("g", Default::default())
        .strict(true)
        .transaction_check(Duration::from_secs(3), Duration::from_secs(2))
        .in_memory()
        .unwrap()
}

async fn prepare(producer: &Client, id: &str) -> String {
    let mut half = message("t", id);
    system(&mut half).message_type = v2::MessageType::Transaction.into();
    let answer = producer.send(vec![half]).await;
    assert_eq!(code(answer.status.as_ref()), Code::Ok, "{answer:?}");
    answer.entries[0].transaction_id.clone()
}

async fn end(
    producer: &Client,
    transaction_id: &str,
    resolution: v2::TransactionResolution,
) -> Code {
    let request = producer.request(v2::EndTransactionRequest {
        topic: resource("t"),
        message_id: "any".to_owned(),
        transaction_id: transaction_id.to_owned(),
        resolution: resolution.into(),
        source: v2::TransactionSource::SourceServerCheck.into(),
        trace_context: String::new(),
    });
    let answer = producer.stub.clone().end_transaction(request).await;
    code(answer.unwrap().into_inner().status.as_ref())
}

#[tokio::test(start_paused = true)]
async fn a_transaction_that_nobody_ends_is_asked_for_and_committed() {
    let broker = broker();
    let mut producer = Client::embedded(&broker, "p").await;
    producer.produce("t").await;
    let mut consumer = Client::embedded(&broker, "c").await;
    consumer.consume("t", "g").await.unwrap();
    prepare(&producer, "ID-1").await;
    assert_eq!(broker.half_messages("t")[0].id, "ID-1");
    assert_eq!(broker.messages("t"), []);
    for times in ["1", "2"] {
        let command = producer.command().await.unwrap().command.unwrap();
        let Command::RecoverOrphanedTransactionCommand(check) = command else {
            panic!("{command:?}");
        };
        let half = check.message.unwrap();
        assert_eq!((id(&half), check.transaction_id.as_str()), ("ID-1", "ID-1"));
        assert_eq!(half.topic, resource("t"));
        assert_eq!(&half.body[..], b"hello");
        assert_eq!(half.user_properties["TRANSACTION_CHECK_TIMES"], times);
        assert_eq!(half.system_properties.unwrap().receipt_handle, None);
    }
    let commit = v2::TransactionResolution::Commit;
    assert_eq!(end(&producer, "ID-1", commit).await, Code::Ok);
    assert_eq!(broker.half_messages("t"), []);
    let received = consumer.receive("t", "g").await;
    assert_eq!(id(&received.messages[0]), "ID-1");
    assert_eq!(
        received.messages[0].user_properties["__transactionId__"],
        "ID-1"
    );
}

#[tokio::test(start_paused = true)]
async fn checks_are_sent_twice_on_request() {
    let broker = broker();
    broker.repeat_transaction_checks(1);
    let mut producer = Client::embedded(&broker, "p").await;
    producer.produce("t").await;
    prepare(&producer, "ID-1").await;
    let begin = tokio::time::Instant::now();
    producer.command().await.unwrap();
    producer.command().await.unwrap();
    assert!(begin.elapsed() < Duration::from_secs(4));
    producer.command().await.unwrap();
    assert!(begin.elapsed() >= Duration::from_secs(5));
}

#[tokio::test(start_paused = true)]
async fn an_unknown_transaction_cannot_be_ended() {
    let broker = broker();
    let producer = Client::embedded(&broker, "p").await;
    let rollback = v2::TransactionResolution::Rollback;
    assert_eq!(
        end(&producer, "nosuch", rollback).await,
        Code::InternalServerError
    );
    assert_eq!(
        end(&producer, "", rollback).await,
        Code::InvalidTransactionId
    );
}
