//! TLS, namespaces and connections that freeze, on the real proxy. It serves TLS with a certificate
//! of its own making and plaintext at the same port.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use http::Uri;
use rocketmq_grpc::{Client, Config, Connector, ConsumerConfig, Filter, Message, ProducerConfig};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream},
    net::TcpStream,
    time::Instant,
};

use crate::server::{Place, endpoints, in_seconds, until_known};

#[cfg(feature = "tls")]
#[tokio::test]
async fn tls_works_when_the_certificate_is_accepted_and_says_what_is_wrong_when_not() {
    use rocketmq_grpc::Tls;

    let place = Place::new("");
    place.producer().await.close(in_seconds(5)).await;
    let config = || Config::new(endpoints());
    let error = Client::new(config().tls(Tls::new()))
        .unwrap()
        .ping()
        .await
        .unwrap_err();
    assert!(
        error.is_incompatible() && !error.is_retryable(),
        "{error:?}"
    );
    println!("refused: {error}");

    let tls = Tls::new().dangerously_accept_any_certificate();
    let client = Client::new(config().tls(tls)).unwrap();
    let producer = client
        .producer(ProducerConfig::new().topic(&place.topic))
        .await
        .unwrap();
    producer
        .send(Message::new(&place.topic, "x"))
        .await
        .unwrap();
    producer.close(in_seconds(5)).await;
}

#[tokio::test]
async fn the_server_takes_no_notice_of_a_namespace() {
    let place = Place::new("");
    let client = Client::new(Config::new(endpoints()).namespace("space")).unwrap();
    let config = || ProducerConfig::new().topic(&place.topic);
    let producer = until_known(async || client.producer(config()).await).await;
    let subscription = ConsumerConfig::new(&place.group).subscribe(&place.topic, Filter::all());
    let spaced = client.consumer(subscription).await.unwrap();
    let plain = place.consumer(Duration::from_secs(10)).await;
    spaced.close(in_seconds(5)).await.unwrap();
    producer
        .send(Message::new(&place.topic, "x"))
        .await
        .unwrap();
    let lease = place.receive_one(&plain, Duration::from_secs(10)).await;
    plain.ack(lease).await.unwrap();
}

/// TCP to the proxy that a test can freeze.
#[derive(Clone, Default)]
struct Relay {
    frozen: Arc<std::sync::Mutex<Arc<AtomicBool>>>,
}

impl Relay {
    fn connector(&self) -> Connector {
        let relay = self.clone();
        Connector::new(tower::service_fn(move |uri: Uri| {
            let frozen = relay.frozen.lock().unwrap().clone();
            async move {
                let host = uri.host().unwrap_or_default().to_owned();
                let server = TcpStream::connect((host, uri.port_u16().unwrap())).await?;
                let (client, near) = tokio::io::duplex(64 << 10);
                tokio::spawn(forward(near, server, frozen));
                Ok::<_, std::io::Error>(client)
            }
        }))
    }

    /// Connections so far forward nothing any more; the next ones do.
    fn freeze(&self) {
        std::mem::take(&mut *self.frozen.lock().unwrap()).store(true, Ordering::SeqCst);
    }
}

async fn forward(near: DuplexStream, far: TcpStream, frozen: Arc<AtomicBool>) {
    let (mut near_read, mut near_write) = tokio::io::split(near);
    let (mut far_read, mut far_write) = far.into_split();
    let (mut up, mut down) = (vec![0; 64 << 10], vec![0; 64 << 10]);
    loop {
        let forwarded = tokio::select! {
            read = near_read.read(&mut up) => match read {
                Ok(count) if count > 0 && frozen.load(Ordering::SeqCst) => Ok(()),
                Ok(count) if count > 0 => far_write.write_all(&up[..count]).await,
                Ok(_) | Err(_) => return,
            },
            read = far_read.read(&mut down) => match read {
                Ok(count) if count > 0 && frozen.load(Ordering::SeqCst) => Ok(()),
                Ok(count) if count > 0 => near_write.write_all(&down[..count]).await,
                Ok(_) | Err(_) => return,
            },
        };
        if forwarded.is_err() {
            return;
        }
    }
}

#[tokio::test]
async fn after_a_connection_froze_sends_and_receives_go_on_within_seconds() {
    let place = Place::new("");
    place.producer().await.close(in_seconds(5)).await;
    let relay = Relay::default();
    let config = Config::new(endpoints()).heartbeat_interval(Duration::from_secs(3));
    let client = Client::with_connector(config, relay.connector()).unwrap();
    let producer = client
        .producer(ProducerConfig::new().topic(&place.topic))
        .await
        .unwrap();
    let subscription = ConsumerConfig::new(&place.group).subscribe(&place.topic, Filter::all());
    let consumer = client.consumer(subscription).await.unwrap();
    let receiving = consumer.receive(&place.topic, 1);
    assert!(
        tokio::time::timeout(Duration::from_millis(500), receiving)
            .await
            .is_err()
    );

    relay.freeze();
    let frozen_at = Instant::now();
    let sent = loop {
        match producer.send(Message::new(&place.topic, "x")).await {
            Ok(receipt) => break receipt,
            Err(error) => assert!(error.is_retryable(), "{error:?}"),
        }
        assert!(frozen_at.elapsed() < Duration::from_secs(60));
    };
    println!("sent {:?} after the freeze", frozen_at.elapsed());
    let by = frozen_at + Duration::from_secs(90);
    let mut seen = Vec::new();
    while !seen.contains(&sent.message_id) {
        let received = consumer.receive(&place.topic, 32);
        for lease in tokio::time::timeout_at(by, received)
            .await
            .unwrap()
            .unwrap()
        {
            seen.push(lease.message().id.clone());
            consumer.ack(lease).await.unwrap();
        }
    }
    println!("received {:?} after the freeze", frozen_at.elapsed());
    consumer.close(in_seconds(5)).await.unwrap();
}
