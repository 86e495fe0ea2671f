//! What handlers log, as it is written; and baggage that is too much for a message.

use std::{
    collections::BTreeMap,
    io::{self, Write},
    sync::{Arc, Mutex},
};

use kratos::{
    App,
    telemetry::{Config, Format, Telemetry},
    trace::{self, Baggage},
};
use kratos_broker::{Batch, BatchSettings, Bytes, Delivery, Driver, Message, Server, Subscription};
use kratos_rocketmq::Client;
use serde_json::Value;

use crate::site::{self, PATIENCE, Running, eventually, within};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

/// The lines, without those of the libraries.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Log {
    /// By their message, which tests choose.
    fn lines(&self) -> BTreeMap<String, Value> {
        let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        let lines = text
            .lines()
            .map(|line| -> Value { serde_json::from_str(line).unwrap() });
        let ours = lines.filter(|line| line["target"] == "it::logs");
        ours.map(|line| (line["message"].as_str().unwrap().to_owned(), line))
            .collect()
    }
}

/// Whatever becomes of a message's trace, what its handler logs says which message it was. In a
/// process of its own: subscribers of other threads would change what is enabled meanwhile.
#[test]
fn what_a_handler_logs_says_of_which_subscription_message_and_trace() {
    site::alone(
        "logs::what_a_handler_logs_says_of_which_subscription_message_and_trace",
        log_and_look,
    );
}

async fn log_and_look() {
    let log = Log::default();
    let config = Config {
        log: "info".to_owned(),
        format: Format::Json,
        service_name: Some("saver".to_owned()),
        service_version: Some("1.2.3".to_owned()),
        // Of messages that come without a trace none is sampled.
        sample_ratio: 0.0,
        ..Config::default()
    };
    let (writer, builder) = (log.clone(), Telemetry::builder(&config).unwrap());
    let telemetry = builder.writer(move || writer.clone()).install().unwrap();

    async fn single(delivery: Delivery) {
        let body = str::from_utf8(delivery.body()).unwrap().to_owned();
        tokio::task::yield_now().await;
        let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
        let error = kratos::Error::msg("cannot save").with_source(refused);
        let error: &(dyn std::error::Error + 'static) = &error;
        tracing::info!(order = 7, error, "{body}");
    }
    async fn batch(_: Batch<Bytes>) {
        tracing::info!("batch");
    }
    let client = Client::embedded();
    let server = Server::new(client.clone())
        .subscribe("logs", "singles", single)
        .subscribe_batch(
            Subscription::new("logs-batch", "batches"),
            BatchSettings::new(8),
            batch,
        );
    let app = App::new().resource(client.clone()).resource(telemetry);
    let app = Running::start(app.server(server));
    app.ready().await;
    let publisher = client.publisher();
    let mut ids = BTreeMap::new();
    for (body, flags) in [("sampled", "01"), ("unsampled", "00")] {
        let parent = format!("00-{TRACE}-00f067aa0ba902b7-{flags}");
        let message = Message::new("logs", body).header("traceparent", parent);
        ids.insert(body, publisher.publish(message).await.unwrap().id);
    }
    // Past the publisher, which would give it a trace.
    let plain = Driver::publish(&client, Message::new("logs", "off")).await;
    ids.insert("off", plain.unwrap().id);
    publisher
        .publish(Message::new("logs-batch", "x"))
        .await
        .unwrap();
    eventually("all have logged", || log.lines().len() == 4).await;
    tracing::info!("outside");
    app.handle.stop();
    app.ended().await.0.unwrap();

    let lines = log.lines();
    for (body, id) in &ids {
        let line = &lines[*body];
        let text = |name: &str| line[name].as_str().unwrap_or_default().to_owned();
        assert_eq!(text("subscription"), "rocketmq:logs:singles", "{line}");
        assert_eq!(text("message_id"), id.as_str(), "{line}");
        assert_eq!((&*text("service"), &*text("version")), ("saver", "1.2.3"));
        assert_eq!(
            (&*text("level"), &line["fields"]["order"]),
            ("INFO", &7.into())
        );
        assert_eq!(line["fields"]["error"], "cannot save: connection refused");
        assert!(!text("timestamp").is_empty());
        let (trace_id, span_id) = (text("trace_id"), text("span_id"));
        assert_eq!((trace_id.len(), span_id.len()), (32, 16), "{line}");
        assert_eq!(trace_id == TRACE, *body != "off", "{line}");
        // Of the handler's span; with none, of the sender's.
        let senders = span_id == "00f067aa0ba902b7";
        assert_eq!(senders, *body == "unsampled", "{line}");
    }
    let batch = &lines["batch"];
    assert_eq!(batch["subscription"], "rocketmq:logs-batch:batches");
    assert_eq!(batch.get("message_id"), None);
    let outside = &lines["outside"];
    assert_eq!(
        (outside.get("subscription"), outside.get("message_id")),
        (None, None)
    );
}

/// Baggage is what callers send: it must not keep a message from being sent.
#[tokio::test]
async fn baggage_that_has_no_room_is_left_behind_and_the_message_is_sent() {
    let client = Client::embedded();
    let (told, mut seen) = tokio::sync::mpsc::unbounded_channel();
    let server = Server::new(client.clone()).subscribe("baggage", "g", move |it: Delivery| {
        let tenant = trace::baggage().get("big").map(|it| it.as_str().len());
        told.send((it.headers().get("note").map(str::len), tenant))
            .unwrap();
        async {}
    });
    let app = Running::start(App::new().resource(client.clone()).server(server));
    app.ready().await;
    for (note, arrives) in [(4_000, Some(8_000)), (12_000, None)] {
        let mut baggage = Baggage::new();
        baggage.insert("big", "x".repeat(8_000));
        let message = Message::new("baggage", "x").header("note", "y".repeat(note));
        let publisher = client.publisher();
        let sent = trace::with_baggage(baggage, publisher.publish(message));
        sent.await.unwrap();
        let seen = within(PATIENCE, seen.recv()).await;
        assert_eq!(seen, Some((Some(note), arrives)));
    }
    app.handle.stop();
    app.ended().await.0.unwrap();
}
