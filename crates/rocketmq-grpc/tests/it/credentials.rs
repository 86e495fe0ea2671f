//! Signed requests: what is sent, and what a refusal leads to.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::future::join_all;
use rocketmq_grpc::{
    BoxError, Client, Config, Credentials, CredentialsProvider, Message, ProducerConfig,
};
use rocketmq_proto::v2::{self as pb, Code};
use tokio::time::Instant;
use tonic::Status;

use crate::fake::{Fake, Item, TOPIC, consumer_config, eventually, message, status};

/// Another secret at every call; `None`: no credentials to be had.
#[derive(Clone)]
struct Rotating {
    asked: Arc<AtomicUsize>,
    broken: bool,
}

impl Rotating {
    fn new(broken: bool) -> Self {
        Self {
            asked: Arc::default(),
            broken,
        }
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

impl CredentialsProvider for Rotating {
    async fn credentials(&self) -> Result<Credentials, BoxError> {
        let turn = self.asked.fetch_add(1, Ordering::SeqCst);
        if self.broken {
            return Err("the vault is sealed".into());
        }
        Ok(Credentials::new("ak", format!("s{turn}")).session_token(format!("token-{turn}")))
    }
}

fn client(fake: &Fake, provider: impl CredentialsProvider) -> Client {
    let config = Fake::config().credentials(provider);
    Client::with_connector(config, fake.link.connector()).unwrap()
}

fn refused() -> Result<pb::SendMessageResponse, Status> {
    Ok(pb::SendMessageResponse {
        status: status(Code::Unauthorized),
        entries: vec![],
    })
}

fn header(fake: &Fake, name: &str) -> Vec<Option<String>> {
    let state = fake.state();
    let headers = state.seen.headers.iter().map(|it| it.get(name));
    headers
        .map(|it| it.map(|value| value.to_str().unwrap().to_owned()))
        .collect()
}

#[tokio::test(start_paused = true)]
async fn every_request_is_signed_and_the_secret_appears_nowhere() {
    let fake = Fake::start();
    let credentials = Credentials::new("ak", "very secret").session_token("a token");
    let config = Fake::config().credentials(credentials.clone());
    for debug in [format!("{credentials:?}"), format!("{config:?}")] {
        assert!(
            !debug.contains("secret") && !debug.contains("token"),
            "{debug}"
        );
    }
    let client = client(&fake, credentials);
    assert!(!format!("{client:?}").contains("very secret"));
    client.ping().await.unwrap();
    let producer = client.producer(ProducerConfig::new()).await.unwrap();
    producer.send(Message::new(TOPIC, "x")).await.unwrap();
    let consumer = client.consumer(consumer_config()).await.unwrap();
    fake.push(vec![message("1")]);
    let lease = consumer.receive(TOPIC, 1).await.unwrap().remove(0);
    consumer.ack(lease).await.unwrap();
    assert!(!format!("{client:?}{producer:?}").contains("very secret"));

    let dates = header(&fake, "x-mq-date-time");
    let signatures = header(&fake, "authorization");
    assert!(signatures.len() >= 7, "{signatures:?}");
    for (date, signature) in dates.into_iter().zip(signatures) {
        let (date, signature) = (date.unwrap(), signature.unwrap());
        let (head, hex) = signature.rsplit_once('=').unwrap();
        assert_eq!(
            head,
            "MQv2-HMAC-SHA1 Credential=ak, SignedHeaders=x-mq-date-time, Signature"
        );
        assert_eq!((date.len(), hex.len()), (16, 40));
        assert!(
            hex.bytes()
                .all(|it| it.is_ascii_digit() || it.is_ascii_uppercase())
        );
    }
    assert!(
        header(&fake, "x-mq-session-token")
            .iter()
            .all(|it| it.as_deref() == Some("a token"))
    );
}

#[tokio::test(start_paused = true)]
async fn without_credentials_nothing_is_signed() {
    let fake = Fake::start();
    fake.client().ping().await.unwrap();
    assert_eq!(header(&fake, "authorization"), [None]);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_gets_other_credentials_and_one_more_try() {
    let fake = Fake::start();
    let provider = Rotating::new(false);
    let client = client(&fake, provider.clone());
    let config = ProducerConfig::new().topic(TOPIC);
    let producer = client.producer(config).await.unwrap();
    assert_eq!(provider.asked(), 1, "for all requests so far");
    tokio::time::sleep(Duration::from_secs(5)).await;

    fake.state().sends = [refused()].into();
    producer.send(Message::new(TOPIC, "x")).await.unwrap();
    assert_eq!((provider.asked(), fake.calls("send")), (2, 2));
    let tokens = header(&fake, "x-mq-session-token");
    assert_eq!(tokens.last().unwrap().as_deref(), Some("token-1"));

    // The provider is not asked again and again by those who are refused at once.
    tokio::time::sleep(Duration::from_secs(5)).await;
    fake.state().sends = [refused(), refused(), refused()].into();
    let error = producer.send(Message::new(TOPIC, "x")).await.unwrap_err();
    assert!(
        error.is_unauthorized() && !error.is_retryable(),
        "{error:?}"
    );
    let error = producer.send(Message::new(TOPIC, "x")).await.unwrap_err();
    assert!(error.to_string().contains("Config::credentials"), "{error}");
    assert_eq!((provider.asked(), fake.calls("send")), (3, 5));
}

#[tokio::test(start_paused = true)]
async fn credentials_that_do_not_change_are_not_tried_twice() {
    let fake = Fake::start();
    let client = client(&fake, Credentials::new("ak", "wrong"));
    let config = ProducerConfig::new().topic(TOPIC);
    let producer = client.producer(config).await.unwrap();
    tokio::time::sleep(Duration::from_secs(5)).await;
    fake.state().sends = [refused()].into();
    let error = producer.send(Message::new(TOPIC, "x")).await.unwrap_err();
    assert!(
        error.is_unauthorized() && !error.may_be_stored(),
        "{error:?}"
    );
    assert_eq!(fake.calls("send"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_refused_session_and_a_refused_receive_get_other_credentials() {
    let fake = Fake::start();
    let provider = Rotating::new(false);
    let client = client(&fake, provider.clone());
    let consumer = client.consumer(consumer_config()).await.unwrap();
    tokio::time::sleep(Duration::from_secs(5)).await;
    fake.state().refusals = [Status::unauthenticated("expired")].into();
    fake.break_telemetry();
    eventually("the consumer notices", || !consumer.is_connected()).await;
    eventually("the session is back", || consumer.is_connected()).await;
    assert_eq!(provider.asked(), 2);

    tokio::time::sleep(Duration::from_secs(5)).await;
    fake.push(vec![Item::Status(Code::Unauthorized)]);
    let receiving = consumer.receive(TOPIC, 1);
    let told = tokio::time::timeout(Duration::from_secs(30), receiving).await;
    assert!(told.unwrap().unwrap_err().is_unauthorized());
    eventually("other credentials", || provider.asked() == 3).await;
    fake.push(vec![message("1")]);
    consumer.receive(TOPIC, 1).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_provider_without_credentials_is_an_error_that_passes_and_has_a_source() {
    let fake = Fake::start();
    let provider = Rotating::new(true);
    let error = client(&fake, provider).ping().await.unwrap_err();
    assert!(error.is_retryable() && !error.may_be_stored(), "{error:?}");
    let source = std::error::Error::source(&error).unwrap();
    assert_eq!(source.to_string(), "the vault is sealed");
    assert!(fake.state().seen.calls.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_never_answers_does_not_hold_a_request_for_ever() {
    struct Stuck;
    impl CredentialsProvider for Stuck {
        async fn credentials(&self) -> Result<Credentials, BoxError> {
            std::future::pending().await
        }
    }
    let config = Config::new("fake:1").credentials(Stuck);
    let fake = Fake::start();
    let client = Client::with_connector(config, fake.link.connector()).unwrap();
    let pinged = tokio::time::timeout(Duration::from_secs(10), client.ping()).await;
    assert!(pinged.unwrap().unwrap_err().is_retryable());
}

/// Gives credentials, then does what the test is about.
#[derive(Clone, Default)]
struct Fails {
    asked: Arc<AtomicUsize>,
    good: usize,
    panics: bool,
}

impl CredentialsProvider for Fails {
    async fn credentials(&self) -> Result<Credentials, BoxError> {
        if self.asked.fetch_add(1, Ordering::SeqCst) < self.good {
            return Ok(Credentials::new("ak", "secret"));
        }
        assert!(!self.panics, "in the provider");
        std::future::pending().await
    }
}

#[tokio::test(start_paused = true)]
async fn requests_that_wait_for_one_provider_hear_of_its_failure_together() {
    let fake = Fake::start();
    let client = client(&fake, Fails::default());
    let start = Instant::now();
    let pings = join_all((0..100).map(|_| client.ping())).await;
    assert!(pings.iter().all(Result::is_err));
    let took = start.elapsed();
    assert!(took < Duration::from_secs(5), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn refused_requests_wait_for_other_credentials_together() {
    let fake = Fake::start();
    let provider = Fails {
        good: 1,
        ..Fails::default()
    };
    let client = client(&fake, provider);
    let config = ProducerConfig::new().topic(TOPIC);
    let producer = client.producer(config).await.unwrap();
    fake.state().sends = (0..100).map(|_| refused()).collect();
    let start = Instant::now();
    let sends = (0..100).map(|_| producer.send(Message::new(TOPIC, "x")));
    let sends = join_all(sends).await;
    assert!(sends.iter().all(Result::is_err));
    let took = start.elapsed();
    assert!(took < Duration::from_secs(5), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_panics_has_no_credentials_and_harms_no_session() {
    let fake = Fake::start();
    let provider = Fails {
        panics: true,
        ..Fails::default()
    };
    let error = client(&fake, provider).ping().await.unwrap_err();
    assert!(error.is_retryable(), "{error:?}");

    let provider = Fails {
        good: 1,
        panics: true,
        ..Fails::default()
    };
    let client = client(&fake, provider);
    let consumer = client.consumer(consumer_config()).await.unwrap();
    // The session asks for other credentials, in a task of its own.
    fake.state().refusals = [Status::unauthenticated("no")].into();
    fake.break_telemetry();
    eventually("the session is lost", || !consumer.is_connected()).await;
    eventually("the session is back", || consumer.is_connected()).await;
}
