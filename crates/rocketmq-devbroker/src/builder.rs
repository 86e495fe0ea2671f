//! Declares a broker before it runs.

use std::{net::SocketAddr, time::Duration};

use crate::{
    DevBroker, Error,
    access::Users,
    serving::Access,
    state::{CheckTimes, DEFAULT_QUEUES, GroupConfig, Limits, State, TopicType},
    store::Store,
    tls::{Pem, Tls},
};

/// Settings of a [`DevBroker`].
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), rocketmq_devbroker::Error> {
/// use rocketmq_devbroker::{DevBroker, GroupConfig, TopicType};
///
/// let broker = DevBroker::builder()
///     .strict(true)
///     .topic("orders", TopicType::Fifo)
///     .group("billing", GroupConfig::new().fifo(true))
///     .listen(([127, 0, 0, 1], 0))
///     .start()
///     .await?;
/// assert!(broker.addr().is_some());
/// broker.shutdown().await;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default)]
pub struct Builder {
    strict: bool,
    topics: Vec<(String, TopicType, u32)>,
    groups: Vec<(String, GroupConfig)>,
    listen: Option<SocketAddr>,
    advertise: Option<(String, u16)>,
    limits: Limits,
    users: Users,
    tls: Option<Pem>,
    #[cfg(feature = "persist")]
    data_dir: Option<std::path::PathBuf>,
}

impl Builder {
    /// Whether unknown topics and groups are refused, as the real server does, rather than
    /// created. False by default.
    #[must_use]
    pub fn strict(mut self, strict: bool) -> Self {
        self.strict = strict;
        self
    }

    /// Creates a topic with four queues.
    #[must_use]
    pub fn topic(self, name: impl Into<String>, kind: TopicType) -> Self {
        self.topic_with_queues(name, kind, DEFAULT_QUEUES)
    }

    /// Creates a topic with so many queues, at least one.
    #[must_use]
    pub fn topic_with_queues(
        mut self,
        name: impl Into<String>,
        kind: TopicType,
        queues: u32,
    ) -> Self {
        self.topics.push((name.into(), kind, queues));
        self
    }

    /// Creates a consumer group.
    #[must_use]
    pub fn group(mut self, name: impl Into<String>, config: GroupConfig) -> Self {
        self.groups.push((name.into(), config));
        self
    }

    /// Listens on a socket, too; port 0 takes any free one. [`DevBroker::addr`] tells which.
    #[must_use]
    pub fn listen(mut self, addr: impl Into<SocketAddr>) -> Self {
        self.listen = Some(addr.into());
        self
    }

    /// The host and port that routes point at, if it is not the address that is listened on.
    #[must_use]
    pub fn advertise(mut self, host: impl Into<String>, port: u16) -> Self {
        self.advertise = Some((host.into(), port));
        self
    }

    /// Speaks TLS with this certificate chain and private key, both PEM. Plaintext is still
    /// understood on the same port, as on the real server: the first byte of a connection tells.
    ///
    /// What is wrong with them is told when the broker is started.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn tls(mut self, cert_pem: impl Into<Vec<u8>>, key_pem: impl Into<Vec<u8>>) -> Self {
        let pem = self.tls.get_or_insert_default();
        (pem.cert, pem.key) = (cert_pem.into(), key_pem.into());
        self
    }

    /// Asks clients for a certificate that one of these authorities (PEM) has signed. Whoever has
    /// none is cut off, and so is plaintext. Needs [`Builder::tls`].
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn client_ca(mut self, ca_pem: impl Into<Vec<u8>>) -> Self {
        self.tls.get_or_insert_default().client_ca = Some(ca_pem.into());
        self
    }

    /// Keeps topics, groups, messages and what groups have done with them in this folder, made if
    /// need be, and brings back what it holds: a send is answered once its message is on disk,
    /// acknowledgements follow within milliseconds. What was in flight is there for another attempt
    /// after the next start; clients and faults are forgotten.
    ///
    /// The folder is read before the broker starts, all of it into memory, and belongs to one
    /// broker at a time: [`DevBroker::shutdown`] returns when it is free again. Do not use it with
    /// a paused clock, which runs ahead while the disk is written.
    #[cfg(feature = "persist")]
    #[must_use]
    pub fn data_dir(mut self, folder: impl Into<std::path::PathBuf>) -> Self {
        self.data_dir = Some(folder.into());
        self
    }

    /// Adds a user. From the first one on every call must be signed by one of them; what is not is
    /// answered with `UNAUTHORIZED`. Everybody may do everything: there are no permissions.
    #[must_use]
    pub fn user(mut self, access_key: impl Into<String>, secret_key: impl Into<String>) -> Self {
        self.users.add(access_key.into(), secret_key.into());
        self
    }

    /// The bounds of a receive's wait: 5 s and 20 s by default, as on the real server. A receive
    /// whose call has less time left than `min` is refused.
    #[must_use]
    pub fn long_poll(mut self, min: Duration, max: Duration) -> Self {
        self.limits.min_long_poll = min;
        self.limits.max_long_poll = max;
        self
    }

    /// The shortest invisible duration that a receive may ask for: 10 s by default, as on the real
    /// server. Shorter ones make tests fast.
    #[must_use]
    pub fn min_invisible(mut self, min: Duration) -> Self {
        self.limits.min_receive_invisible = min;
        self
    }

    /// The largest body, in bytes: 4 MiB by default.
    #[must_use]
    pub fn max_body_bytes(mut self, bytes: usize) -> Self {
        self.limits.max_body_bytes = bytes;
        self
    }

    /// How many messages a queue keeps although every group has settled them: 10,000 by default.
    #[must_use]
    pub fn retained_messages(mut self, messages: usize) -> Self {
        self.limits.retained_messages = messages;
        self
    }

    /// How many bytes of messages the broker keeps in all: 1 GiB by default. Beyond it, sends are
    /// answered with `TOO_MANY_REQUESTS`.
    #[must_use]
    pub fn max_stored_bytes(mut self, bytes: usize) -> Self {
        self.limits.max_stored_bytes = bytes;
        self
    }

    /// When a transaction that nobody ends is checked: first `timeout` after the half message, then
    /// every `interval`. 6 s and 30 s by default, as on the real server; after 15 checks the message
    /// is given up.
    #[must_use]
    pub fn transaction_check(mut self, timeout: Duration, interval: Duration) -> Self {
        self.limits.checks = CheckTimes { timeout, interval };
        self
    }

    /// Whether a send of several messages is answered with one entry, as the real server does it, or
    /// with one for each. True by default.
    #[must_use]
    pub fn one_entry_batch(mut self, one: bool) -> Self {
        self.limits.one_entry_batch = one;
        self
    }

    /// Whether a receive is answered with time of delivery, messages and status in this order,
    /// rather than with the status first, as the real server does it. False by default.
    #[must_use]
    pub fn status_last(mut self, last: bool) -> Self {
        self.limits.status_last = last;
        self
    }

    /// Makes a broker that is reached through [`DevBroker::connector`] only. Needs no runtime
    /// until somebody connects; an address to listen on is not used.
    ///
    /// # Errors
    ///
    /// If the name of a topic or group is not allowed, a certificate is wrong, or the data folder
    /// cannot be used.
    pub fn in_memory(self) -> Result<DevBroker, Error> {
        self.broker()
    }

    /// Starts the broker.
    ///
    /// # Errors
    ///
    /// If the address is taken or cannot be listened on, if a name is not allowed, if a
    /// certificate is wrong, or if the data folder is in use, damaged, or of another version.
    pub async fn start(self) -> Result<DevBroker, Error> {
        let listen = self.listen;
        let broker = self.broker()?;
        if let Some(addr) = listen {
            broker.listen(addr).await?;
        }
        Ok(broker)
    }

    fn broker(mut self) -> Result<DevBroker, Error> {
        let access = Access {
            users: std::mem::take(&mut self.users),
            tls: self.tls.take().map(|pem| Tls::new(&pem)).transpose()?,
        };
        let advertise = self.advertise.take();
        let (state, store) = self.state()?;
        Ok(DevBroker::new(state, advertise, access, store))
    }

    fn state(self) -> Result<(State, Option<Store>), Error> {
        let mut state = State::new(self.strict, self.limits);
        #[cfg(feature = "persist")]
        let store = self
            .data_dir
            .map(|folder| Store::open(&folder, &mut state))
            .transpose()?;
        #[cfg(not(feature = "persist"))]
        let store = None;
        for (name, kind, queues) in self.topics {
            state
                .create_topic(&name, kind, queues)
                .map_err(|refusal| Error::declaration("topic", &name, refusal))?;
        }
        for (name, config) in self.groups {
            state
                .create_group(&name, config)
                .map_err(|refusal| Error::declaration("group", &name, refusal))?;
        }
        Ok((state, store))
    }
}
