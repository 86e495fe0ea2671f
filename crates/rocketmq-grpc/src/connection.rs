//! One HTTP/2 connection per endpoints, replaced when it turns out to be dead.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{sync::watch, time::Instant};
use tonic::transport::{Channel, Endpoint};

use crate::{
    Error,
    connect::{Connector, Fault, Sticky},
    endpoints::Endpoints,
};

/// The proxy answers pings more often than every five minutes with GOAWAY; what is dead sooner is
/// found by heartbeats.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(300);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(30);
/// Windows that a batch of 32 messages of 4 KiB does not fill, so that it comes without a pause.
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;
/// A connection that was just made anew is not given up again.
const RENEW_INTERVAL: Duration = Duration::from_secs(30);

/// Shared by all producers and consumers of a client.
///
/// The channel connects when it is first used and again after a loss. A half-open connection is
/// not lost in its eyes: [`renew`](Connection::renew) puts a fresh one in its place, and those who
/// hold streams of the old one learn it from [`generation`](Connection::generation).
#[derive(Debug)]
pub(crate) struct Connection {
    endpoints: Endpoints,
    endpoint: Endpoint,
    connector: Sticky,
    channel: Mutex<Channel>,
    generation: watch::Sender<u64>,
    renewed_at: Mutex<Option<Instant>>,
    isolated: AtomicBool,
}

impl Connection {
    pub(crate) fn new(
        endpoints: Endpoints,
        connector: Connector,
        connect_timeout: Duration,
    ) -> Result<Self, Error> {
        let authority = endpoints
            .addresses()
            .first()
            .map(ToString::to_string)
            .unwrap_or_default();
        // The channel itself speaks plaintext: TLS is the connector's business.
        let unusable =
            |e: &dyn std::fmt::Display| Error::config(format!("endpoints {endpoints}: {e}"));
        let origin: http::Uri = format!("{}://{authority}", connector.scheme())
            .parse()
            .map_err(|e| unusable(&e))?;
        let endpoint = Endpoint::from_shared(format!("http://{authority}"))
            .map_err(|e| unusable(&e))?
            .origin(origin)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
            .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
            .keep_alive_while_idle(true);
        let connector = Sticky::new(connector, endpoints.clone(), connect_timeout);
        let channel = endpoint.connect_with_connector_lazy(connector.clone());
        Ok(Self {
            endpoints,
            endpoint,
            connector,
            channel: Mutex::new(channel),
            generation: watch::Sender::new(0),
            renewed_at: Mutex::new(None),
            isolated: AtomicBool::new(false),
        })
    }

    pub(crate) fn endpoints(&self) -> &Endpoints {
        &self.endpoints
    }

    pub(crate) fn channel(&self) -> Channel {
        self.channel
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Changes when streams of the old connection are to be given up.
    pub(crate) fn generation(&self) -> watch::Receiver<u64> {
        self.generation.subscribe()
    }

    /// Changes when the channel looks for another connection, as after the GOAWAY of a server that
    /// is about to go: a session has to follow.
    pub(crate) fn attempts(&self) -> watch::Receiver<u64> {
        self.connector.attempts()
    }

    /// Gives the connection up and makes a new one on next use.
    ///
    /// Does nothing within 30 s of the last time, unless `at_once`: the server asked for it.
    pub(crate) fn renew(&self, at_once: bool) -> bool {
        let mut renewed_at = self
            .renewed_at
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if !at_once && renewed_at.is_some_and(|at| at.elapsed() < RENEW_INTERVAL) {
            return false;
        }
        *renewed_at = Some(Instant::now());
        let channel = self
            .endpoint
            .connect_with_connector_lazy(self.connector.clone());
        *self.channel.lock().unwrap_or_else(PoisonError::into_inner) = channel;
        self.generation.send_modify(|it| *it += 1);
        true
    }

    /// Why the last connection was of no use, if that is known.
    pub(crate) fn fault(&self) -> Option<Fault> {
        self.connector.diagnosis()
    }

    /// Producers pass an isolated one by while there are others.
    pub(crate) fn is_isolated(&self) -> bool {
        self.isolated.load(Ordering::Relaxed)
    }

    /// Set by failures, lifted by the next heartbeat that is answered.
    pub(crate) fn set_isolated(&self, isolated: bool) {
        self.isolated.store(isolated, Ordering::Relaxed);
    }
}
