//! The broker as a value.

mod faults;
mod inspect;

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex},
};

use rocketmq_proto::v2::{Address, AddressScheme, Endpoints};
use tokio::net::TcpListener;

use crate::{
    Builder, Connector, Error,
    core::{Core, lock},
    serving::{Access, Serving},
    state::{DEFAULT_QUEUES, GroupConfig, State, TopicType},
    store::Store,
};

/// What routes of a broker without a socket point at: a name that resolves nowhere, so that whoever
/// dials it instead of using the connector is told so by its resolver.
const IN_MEMORY_HOST: &str = "devbroker.invalid";
const IN_MEMORY_PORT: u16 = 8081;

/// A RocketMQ broker in this process. A cheap handle: clones share the broker, which ends with the
/// last of them and of its [`Connector`]s.
#[derive(Clone, Debug)]
pub struct DevBroker {
    inner: Arc<Inner>,
}

/// The broker behind its handles and connectors.
#[derive(Debug)]
pub(crate) struct Inner {
    core: Arc<Core>,
    serving: Mutex<Phase>,
}

#[derive(Debug)]
enum Phase {
    /// Nobody has connected yet: a runtime was not needed so far.
    Idle,
    Serving {
        serving: Serving,
        addr: Option<SocketAddr>,
    },
    Stopped {
        addr: Option<SocketAddr>,
    },
}

impl Phase {
    fn addr(&self) -> Option<SocketAddr> {
        match self {
            Self::Idle => None,
            Self::Serving { addr, .. } | Self::Stopped { addr } => *addr,
        }
    }
}

impl Inner {
    /// The serving side, begun on first use; none while the broker is stopped.
    pub(crate) fn serving(&self) -> Option<Serving> {
        let mut phase = lock(&self.serving);
        if matches!(*phase, Phase::Idle) {
            let serving = Serving::start(Arc::clone(&self.core));
            *phase = Phase::Serving {
                serving,
                addr: None,
            };
        }
        match &*phase {
            Phase::Serving { serving, .. } => Some(serving.clone()),
            Phase::Idle | Phase::Stopped { .. } => None,
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Phase::Serving { serving, .. } = &*lock(&self.serving) {
            serving.cut();
        }
    }
}

impl DevBroker {
    /// Starts a broker in memory, with no socket, that creates topics and groups as they are
    /// used.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// use rocketmq_devbroker::DevBroker;
    ///
    /// let broker = DevBroker::start().await;
    /// assert!(broker.messages("orders").is_empty());
    /// broker.shutdown().await;
    /// # }
    /// ```
    pub async fn start() -> Self {
        Self::in_memory()
    }

    /// The same as [`DevBroker::start`] for constructors: it needs no runtime until somebody
    /// connects. The runtime of the first connection then keeps the broker's time.
    #[must_use]
    pub fn in_memory() -> Self {
        Self::new(State::default(), None, Access::default(), None)
    }

    /// Declares a broker: strictness, topics, groups, a socket.
    #[must_use]
    pub fn builder() -> Builder {
        Builder::default()
    }

    pub(crate) fn new(
        state: State,
        advertise: Option<(String, u16)>,
        access: Access,
        store: Option<Store>,
    ) -> Self {
        let (host, port) = advertise.unwrap_or((IN_MEMORY_HOST.to_owned(), IN_MEMORY_PORT));
        let core = Arc::new(Core::new(state, endpoints(host, port), access, store));
        Self {
            inner: Arc::new(Inner {
                core,
                serving: Mutex::new(Phase::Idle),
            }),
        }
    }

    /// The address that is listened on, also while the broker is stopped.
    #[must_use]
    pub fn addr(&self) -> Option<SocketAddr> {
        lock(&self.inner.serving).addr()
    }

    /// The way in without a socket: give it to tonic's `Endpoint::connect_with_connector`.
    #[must_use]
    pub fn connector(&self) -> Connector {
        Connector::new(Arc::clone(&self.inner))
    }

    /// Creates a topic with four queues, or changes the type of one.
    ///
    /// # Errors
    ///
    /// If the name is not allowed.
    pub fn create_topic(&self, name: &str, kind: TopicType) -> Result<(), Error> {
        self.create_topic_with_queues(name, kind, DEFAULT_QUEUES)
    }

    /// Creates a topic with so many queues, at least one, or changes the type of one.
    ///
    /// # Errors
    ///
    /// If the name is not allowed.
    pub fn create_topic_with_queues(
        &self,
        name: &str,
        kind: TopicType,
        queues: u32,
    ) -> Result<(), Error> {
        let created = self
            .core()
            .with(|state, _| state.create_topic(name, kind, queues));
        created.map_err(|refusal| Error::declaration("topic", name, refusal))
    }

    /// Creates a consumer group, or changes the retry policy of one. Whether it is ordered is
    /// settled for a topic by the group's first receive from it.
    ///
    /// # Errors
    ///
    /// If the name is not allowed.
    pub fn create_group(&self, name: &str, config: GroupConfig) -> Result<(), Error> {
        let created = self
            .core()
            .with(|state, _| state.create_group(name, config));
        created.map_err(|refusal| Error::declaration("group", name, refusal))
    }

    /// Goes away as a broker does that is killed: the socket is closed, every connection is cut,
    /// new ones are refused. Messages, leases and positions are kept; time goes on for them.
    pub async fn stop(&self) {
        let serving = {
            let mut phase = lock(&self.inner.serving);
            let addr = phase.addr();
            match std::mem::replace(&mut *phase, Phase::Stopped { addr }) {
                Phase::Serving { serving, .. } => Some(serving),
                Phase::Idle | Phase::Stopped { .. } => None,
            }
        };
        if let Some(serving) = serving {
            serving.stop().await;
        }
    }

    /// Comes back after [`DevBroker::stop`], on the same address. Clients have to send their
    /// settings again. Does nothing if the broker is not stopped.
    ///
    /// # Errors
    ///
    /// If the address was taken meanwhile.
    pub async fn restart(&self) -> Result<(), Error> {
        let addr = match &*lock(&self.inner.serving) {
            Phase::Stopped { addr } => *addr,
            Phase::Idle | Phase::Serving { .. } => return Ok(()),
        };
        if let Some(addr) = addr {
            return self.listen(addr).await;
        }
        let serving = Serving::start(Arc::clone(self.core()));
        *lock(&self.inner.serving) = Phase::Serving { serving, addr };
        Ok(())
    }

    /// Stops for good. Ends as soon as every connection is cut and the data folder, if there is
    /// one, is written and free; other handles see a stopped broker.
    pub async fn shutdown(self) {
        self.stop().await;
        self.core().close_store().await;
    }

    pub(crate) async fn listen(&self, addr: SocketAddr) -> Result<(), Error> {
        let listener = TcpListener::bind(addr)
            .await
            .map_err(|e| Error::listen(addr, e))?;
        let addr = listener.local_addr().map_err(|e| Error::listen(addr, e))?;
        let core = self.core();
        let current = core.endpoints();
        if current
            .addresses
            .iter()
            .any(|address| address.host == IN_MEMORY_HOST)
        {
            core.set_endpoints(endpoints(reachable(addr.ip()).to_string(), addr.port()));
        }
        let serving = Serving::start(Arc::clone(core));
        serving.accept(listener);
        *lock(&self.inner.serving) = Phase::Serving {
            serving,
            addr: Some(addr),
        };
        Ok(())
    }

    pub(crate) fn core(&self) -> &Arc<Core> {
        &self.inner.core
    }
}

/// The address under which a client on this machine reaches a listener.
fn reachable(ip: IpAddr) -> IpAddr {
    if ip.is_unspecified() {
        IpAddr::V4(Ipv4Addr::LOCALHOST)
    } else {
        ip
    }
}

fn endpoints(host: String, port: u16) -> Endpoints {
    let scheme = match host.parse::<IpAddr>() {
        Ok(IpAddr::V4(_)) => AddressScheme::IPv4,
        Ok(IpAddr::V6(_)) => AddressScheme::IPv6,
        Err(_) => AddressScheme::DomainName,
    };
    let address = Address {
        host,
        port: i32::from(port),
    };
    Endpoints {
        scheme: scheme.into(),
        addresses: vec![address],
    }
}
