//! Half messages and their end. The last act: the first transaction that is committed makes the
//! recorded server burn a core from then on.

use rocketmq_devbroker::TopicType;
use rocketmq_proto::v2::{self, MessageType, TransactionResolution, TransactionSource};

use super::{Part, Topic, group, seconds, topic};
use crate::matches_real_server::{
    caller::{Caller, Edit, ask, message, resource},
    scene::Scene,
};

const T: &str = "transaction-t";
const G: &str = "transaction-g";
const TOPICS: &[Topic] = &[topic(T, TopicType::Transaction, 1)];

pub(crate) const PART: Part = Part {
    name: "transaction",
    topics: TOPICS,
    groups: &[group(G)],
    run: |s| Box::pin(run(s)),
};

fn half(id: &str) -> v2::Message {
    message(T, id)
        .kind(MessageType::Transaction)
        .property("p", "v")
}

fn end(transaction: &str, resolution: TransactionResolution) -> v2::EndTransactionRequest {
    v2::EndTransactionRequest {
        topic: resource(T),
        message_id: "any".to_owned(),
        transaction_id: transaction.to_owned(),
        resolution: resolution.into(),
        source: TransactionSource::SourceClient.into(),
        trace_context: String::new(),
    }
}

/// Sends a half message and returns the id of its transaction.
async fn begin(s: &mut Scene, by: &Caller, id: &str) -> String {
    let step = format!("half message {id}");
    let sent = s.send(&step, by, vec![half(id)]).await;
    let entry = sent.entries.into_iter().next();
    entry.map(|entry| entry.transaction_id).unwrap_or_default()
}

async fn run(s: &mut Scene) {
    let by = s.producer("p", &[T]).await;
    let commit = TransactionResolution::Commit;
    let roll_back = TransactionResolution::Rollback;
    s.end("commit of an unknown one", &by, end("nosuch", commit))
        .await;
    s.end("roll-back of an unknown one", &by, end("nosuch", roll_back))
        .await;
    s.end("commit without an id", &by, end("", commit)).await;
    let recovery = half("m0").edit(|s| s.orphaned_transaction_recovery_duration = seconds(7200));
    s.send("a recovery after two hours", &by, vec![recovery])
        .await;
    s.send("a batch of two", &by, vec![half("b1"), half("b2")])
        .await;
    let one = begin(s, &by, "m1").await;
    let two = begin(s, &by, "m2").await;
    s.end("roll-back", &by, end(&one, roll_back)).await;
    s.end("roll-back again", &by, end(&one, roll_back)).await;
    let consumer = s.consumer("c", T, G).await;
    s.receive("nothing is committed", &consumer, ask(T, G))
        .await;
    s.end("commit", &by, end(&two, commit)).await;
    s.end("commit again", &by, end(&two, commit)).await;
    s.receive_whole_soon("what is committed", &consumer, ask(T, G))
        .await;
    s.receive("and no more", &consumer, ask(T, G)).await;
}
