//! Interceptors: their order, what they may change, and what their failures do.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use rocketmq_grpc::{
    BoxError, Client, ConsumerConfig, Filter, Interceptor, Message, MessageView, ProducerConfig,
    Result, SendReceipt, Settled,
};

use crate::fake::{Fake, Item, TOPIC, consumer_config, eventually, message};

type Log = Arc<Mutex<Vec<String>>>;

struct Named(&'static str, Log);

impl Named {
    fn log(&self, what: &str) {
        self.1.lock().unwrap().push(format!("{} {what}", self.0));
    }
}

impl Interceptor for Named {
    fn before_send(&self, message: Message) -> Result<Message, BoxError> {
        self.log("before");
        let body = [message.body(), self.0.as_bytes()].concat();
        Ok(message.with_body(body))
    }

    fn after_send(&self, _: &Message, result: &Result<SendReceipt>) {
        self.log(if result.is_ok() { "sent" } else { "failed" });
    }

    fn after_receive(&self, message: &mut MessageView) -> Result<(), BoxError> {
        self.log("received");
        message.body = [&message.body, self.0.as_bytes()].concat().into();
        Ok(())
    }

    fn after_settle(&self, settled: &Settled) {
        self.log(&format!("settled {}", settled.message_id));
    }
}

struct Failing {
    panics: bool,
}

impl Interceptor for Failing {
    fn before_send(&self, _: Message) -> Result<Message, BoxError> {
        assert!(!self.panics, "in the interceptor");
        Err("no key".into())
    }

    fn after_receive(&self, message: &mut MessageView) -> Result<(), BoxError> {
        if message.id == "good" {
            return Ok(());
        }
        assert!(!self.panics, "in the interceptor");
        Err("no key".into())
    }

    fn after_settle(&self, _: &Settled) {
        assert!(!self.panics, "in the interceptor");
    }
}

fn named(id: &str) -> Item {
    message(id)
}

#[tokio::test(start_paused = true)]
async fn the_first_is_outermost_on_the_way_out_and_on_the_way_in() {
    let (fake, log) = (Fake::start(), Log::default());
    let config = Fake::config()
        .interceptor(Named("a", log.clone()))
        .interceptor(Named("b", log.clone()));
    let client = Client::with_connector(config, fake.link.connector()).unwrap();
    let producer = client.producer(ProducerConfig::new()).await.unwrap();
    producer.send(Message::new(TOPIC, "x")).await.unwrap();
    let batch = vec![Message::new(TOPIC, "y"), Message::new(TOPIC, "z")];
    producer.send_batch(batch).await.unwrap();
    producer
        .send(Message::new("missing", "x"))
        .await
        .unwrap_err();
    let bodies: Vec<_> = fake
        .state()
        .seen
        .sends
        .iter()
        .map(|it| it.body.clone())
        .collect();
    assert_eq!(bodies, ["xab", "yab", "zab"]);

    let consumer = client.consumer(consumer_config()).await.unwrap();
    fake.push(vec![named("1")]);
    let lease = consumer.receive(TOPIC, 1).await.unwrap().remove(0);
    assert_eq!(lease.message().body, "bodyba");
    consumer.ack(lease).await.unwrap();
    assert_eq!(
        *log.lock().unwrap(),
        [
            "a before",
            "b before",
            "b sent",
            "a sent",
            "a before",
            "b before",
            "a before",
            "b before",
            "b sent",
            "a sent",
            "b sent",
            "a sent",
            "a before",
            "b before",
            "b failed",
            "a failed",
            "b received",
            "a received",
            "b settled 1",
            "a settled 1",
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn what_an_interceptor_refuses_is_not_sent_and_goes_back() {
    for panics in [false, true] {
        let fake = Fake::start();
        let config = Fake::config().interceptor(Failing { panics });
        let client = Client::with_connector(config, fake.link.connector()).unwrap();
        let producer = client.producer(ProducerConfig::new()).await.unwrap();
        let error = producer.send(Message::new(TOPIC, "x")).await.unwrap_err();
        assert!(error.is_invalid() && !error.may_be_stored(), "{error:?}");
        assert!(std::error::Error::source(&error).is_some());
        assert_eq!(fake.calls("send"), 0);

        let consumer = client.consumer(consumer_config()).await.unwrap();
        fake.push(vec![named("bad"), named("good")]);
        let lease = consumer.receive(TOPIC, 2).await.unwrap().remove(0);
        assert_eq!(lease.message().id, "good");
        consumer.ack(lease).await.unwrap();
        assert_eq!(consumer.stats().corrupted, 1);
        eventually("it goes back", || fake.calls("change") == 1).await;
    }
}

/// Tags of one version of a service.
struct Versioned;

impl Interceptor for Versioned {
    fn after_receive(&self, message: &mut MessageView) -> Result<(), BoxError> {
        let tag = message.tag.as_deref().unwrap_or_default();
        message.tag = tag.strip_prefix("v2-").map(str::to_owned);
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn a_tag_that_an_interceptor_changes_does_not_have_its_message_thrown_away() {
    let fake = Fake::start();
    let config = Fake::config().interceptor(Versioned);
    let client = Client::with_connector(config, fake.link.connector()).unwrap();
    let config = ConsumerConfig::new("g").subscribe(TOPIC, Filter::tags("v2-paid"));
    let consumer = client.consumer(config).await.unwrap();
    let mut item = message("1");
    if let Item::Message(message) = &mut item {
        message.system_properties.as_mut().unwrap().tag = Some("v2-paid".to_owned());
    }
    fake.push(vec![item]);
    let received = consumer.receive(TOPIC, 1);
    let received = tokio::time::timeout(Duration::from_secs(60), received).await;
    let received = received.expect("the message is acknowledged unseen");
    let lease = received.unwrap().remove(0);
    assert_eq!(lease.message().tag.as_deref(), Some("paid"));
    assert_eq!(fake.calls("ack"), 0);
}
