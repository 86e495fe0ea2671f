//! Clusters, their brokers, and where topics are.

use std::collections::BTreeMap;

use serde::Deserialize;

/// Id of a broker that takes messages; others are its replicas.
const MASTER: u64 = 0;

/// A broker with its replicas.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Broker {
    /// Its name.
    pub name: String,
    /// Cluster that it belongs to.
    pub cluster: String,
    /// Addresses by id; 0 is the master.
    pub addresses: BTreeMap<u64, String>,
    /// What the master says of its version, such as `V5_5_0`; none if it did not answer.
    pub version: Option<String>,
}

/// Where a topic is, as a name server tells clients.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Route {
    /// Brokers with queues of the topic, by name.
    pub brokers: Vec<BrokerRoute>,
}

/// A topic's place on one broker.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct BrokerRoute {
    /// Name of the broker.
    pub broker: String,
    /// Cluster that it belongs to.
    pub cluster: String,
    /// Addresses by id; 0 is the master.
    pub addresses: BTreeMap<u64, String>,
    /// Queues for consumers.
    pub read_queues: u32,
    /// Queues for producers.
    pub write_queues: u32,
    /// 4 for reading and 2 for writing, added.
    pub permissions: u32,
}

/// Answer about the cluster, on the wire.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct WireCluster {
    #[serde(default)]
    broker_addr_table: BTreeMap<String, WireBroker>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireBroker {
    broker_name: String,
    #[serde(default)]
    cluster: String,
    #[serde(default)]
    broker_addrs: BTreeMap<u64, String>,
}

/// Answer about a topic's route, on the wire.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct WireRoute {
    #[serde(default)]
    broker_datas: Vec<WireBroker>,
    #[serde(default)]
    queue_datas: Vec<WireQueues>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireQueues {
    broker_name: String,
    #[serde(default)]
    read_queue_nums: u32,
    #[serde(default)]
    write_queue_nums: u32,
    #[serde(default)]
    perm: u32,
}

/// A master broker and where it listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Master {
    pub(crate) name: String,
    pub(crate) address: String,
}

// === impl Broker ===

impl Broker {
    /// Address of the master; none while only replicas are there.
    #[must_use]
    pub fn master(&self) -> Option<&str> {
        self.addresses.get(&MASTER).map(String::as_str)
    }
}

// === impl Route ===

impl Route {
    pub(crate) fn masters(&self) -> Vec<Master> {
        let master = |it: &BrokerRoute| {
            Some(Master {
                name: it.broker.clone(),
                address: it.addresses.get(&MASTER)?.clone(),
            })
        };
        self.brokers.iter().filter_map(master).collect()
    }
}

impl From<WireRoute> for Route {
    fn from(wire: WireRoute) -> Self {
        let queues: BTreeMap<_, _> = wire
            .queue_datas
            .iter()
            .map(|it| (it.broker_name.as_str(), it))
            .collect();
        let mut brokers: Vec<_> = wire
            .broker_datas
            .into_iter()
            .map(|it| {
                let queues = queues.get(it.broker_name.as_str());
                BrokerRoute {
                    cluster: it.cluster,
                    addresses: it.broker_addrs,
                    read_queues: queues.map_or(0, |it| it.read_queue_nums),
                    write_queues: queues.map_or(0, |it| it.write_queue_nums),
                    permissions: queues.map_or(0, |it| it.perm),
                    broker: it.broker_name,
                }
            })
            .collect();
        brokers.sort_by(|a, b| a.broker.cmp(&b.broker));
        Self { brokers }
    }
}

impl From<WireCluster> for Vec<Broker> {
    fn from(wire: WireCluster) -> Self {
        let broker = |it: WireBroker| Broker {
            name: it.broker_name,
            cluster: it.cluster,
            addresses: it.broker_addrs,
            version: None,
        };
        wire.broker_addr_table.into_values().map(broker).collect()
    }
}
