//! Access control: which calls are signed, and what the others are told. The codes and words are
//! those of a real server with access control 2.0.

use hmac::{Hmac, KeyInit as _, Mac as _};
use rocketmq_devbroker::{Code, DevBroker};
use rocketmq_proto::v2;
use sha1::Sha1;

use crate::client::{Client, code, message, resource};

const DATE: &str = "20261123T080000Z";
const NOT_SIGNED: &str = "username cannot be null.";

fn authorization(access_key: &str, secret_key: &str) -> String {
    let mut mac = Hmac::<Sha1>::new_from_slice(secret_key.as_bytes()).unwrap();
    mac.update(DATE.as_bytes());
    let bytes = mac.finalize().into_bytes();
    let hex: String = bytes.iter().map(|byte| format!("{byte:02X}")).collect();
    format!("MQv2-HMAC-SHA1 Credential={access_key}, SignedHeaders=x-mq-date-time, Signature={hex}")
}

fn broker() -> DevBroker {
    let builder = DevBroker::builder()
        .user("alice", "wonder")
        .user("bob", "builder");
    builder.in_memory().unwrap()
}

async fn client(broker: &DevBroker, access_key: &str, secret_key: &str) -> Client {
    let mut client = Client::embedded(broker, access_key).await;
    client
        .headers
        .insert("x-mq-date-time", DATE.parse().unwrap());
    let signature = authorization(access_key, secret_key);
    client
        .headers
        .insert("authorization", signature.parse().unwrap());
    client
}

fn refused(status: Option<v2::Status>, message: &str) {
    let status = status.unwrap();
    assert_eq!(
        (status.code(), &*status.message),
        (Code::Unauthorized, message)
    );
}

#[tokio::test]
async fn a_signed_client_sends_receives_and_acks() {
    let broker = broker();
    for (user, secret) in [("alice", "wonder"), ("bob", "builder")] {
        let mut client = client(&broker, user, secret).await;
        client.consume("t", user).await.unwrap();
        client.put("t", user).await;
        let received = client.receive("t", user).await;
        let handles: Vec<String> = received
            .messages
            .iter()
            .map(crate::client::handle)
            .collect();
        let answer = client.ack("t", user, &handles).await;
        assert_eq!(code(answer.status.as_ref()), Code::Ok);
        assert_eq!(client.terminate().await, Code::Ok);
    }
}

#[tokio::test]
async fn every_unsigned_call_is_unauthorized_in_an_ok_answer() {
    let broker = broker();
    let mut client = Client::embedded(&broker, "stranger").await;
    refused(client.route("t").await.status, NOT_SIGNED);
    refused(Some(client.heartbeat(Some("g")).await), NOT_SIGNED);
    let answer = client.send(vec![message("t", "1")]).await;
    assert!(answer.entries.is_empty());
    refused(answer.status, NOT_SIGNED);
    let answer = client.ack("t", "g", &["handle".to_owned()]).await;
    assert!(answer.entries.is_empty());
    refused(answer.status, NOT_SIGNED);
    let answer = client
        .change("t", "g", "handle", std::time::Duration::ZERO)
        .await;
    refused(answer.status, NOT_SIGNED);
    assert_eq!(client.forward("t", "g", "handle").await, Code::Unauthorized);
    assert_eq!(client.terminate().await, Code::Unauthorized);
    let request = client.request(v2::QueryAssignmentRequest {
        topic: resource("t"),
        group: resource("g"),
        endpoints: None,
    });
    let answer = client.stub.query_assignment(request).await.unwrap();
    refused(answer.into_inner().status, NOT_SIGNED);
    let request = client.request(v2::RecallMessageRequest {
        topic: resource("t"),
        recall_handle: "handle".to_owned(),
    });
    let answer = client.stub.recall_message(request).await.unwrap();
    refused(answer.into_inner().status, NOT_SIGNED);
    let request = client.request(v2::EndTransactionRequest::default());
    let answer = client.stub.end_transaction(request).await.unwrap();
    refused(answer.into_inner().status, NOT_SIGNED);

    let received = client.receive("t", "g").await;
    assert_eq!(received.order, "s");
    assert_eq!(
        (received.code, &*received.text),
        (Code::Unauthorized.into(), NOT_SIGNED)
    );
    refused(client.consume_raw("t", "g").await.status, NOT_SIGNED);
    assert!(broker.connected_clients().is_empty());
    assert!(broker.messages("t").is_empty());
}

#[tokio::test]
async fn a_wrong_secret_and_an_unknown_user_are_told_apart() {
    let broker = broker();
    let wrong = client(&broker, "alice", "builder").await;
    refused(wrong.route("t").await.status, "check signature failed.");
    let unknown = client(&broker, "eve", "wonder").await;
    refused(unknown.route("t").await.status, "User:eve is not found.");
}

#[tokio::test]
async fn a_signature_is_looked_at_before_the_client_id() {
    let broker = broker();
    let mut nameless = client(&broker, "alice", "wonder").await;
    nameless.id = String::new();
    let answer = nameless.route("t").await;
    assert_eq!(code(answer.status.as_ref()), Code::ClientIdRequired);
    nameless.headers.remove("authorization");
    refused(nameless.route("t").await.status, NOT_SIGNED);
}

#[tokio::test]
async fn access_key_and_session_token_of_a_client_are_seen() {
    for broker in [broker(), DevBroker::in_memory()] {
        let mut client = client(&broker, "alice", "wonder").await;
        client
            .headers
            .insert("x-mq-session-token", "token".parse().unwrap());
        client.produce("t").await;
        let seen = broker.connected_clients();
        assert_eq!(seen[0].access_key.as_deref(), Some("alice"));
        assert_eq!(seen[0].session_token.as_deref(), Some("token"));
    }
}
