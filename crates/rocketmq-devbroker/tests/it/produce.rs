//! Sending.

use rocketmq_devbroker::{Code, DevBroker};

use crate::client::{Client, code, message};

#[tokio::test(start_paused = true)]
async fn a_batch_is_answered_with_one_entry_and_stored_whole() {
    let broker = DevBroker::start().await;
    let mut producer = Client::embedded(&broker, "p").await;
    producer.produce("t").await;
    let messages = ["ID-1", "ID-2", "ID-3"].map(|id| message("t", id)).to_vec();
    let answer = producer.send(messages).await;
    assert_eq!(code(answer.status.as_ref()), Code::Ok);
    assert_eq!(answer.entries.len(), 1);
    assert_eq!(broker.messages("t").len(), 3);
}
