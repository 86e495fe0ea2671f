//! The route of a topic: its queues, and what may be done with them.

use rocketmq_proto::v2::{self as pb, MessageType, Permission};

use crate::endpoints::Endpoints;

/// Id of the broker that takes writes; others are its replicas.
const MASTER: i32 = 0;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Route {
    pub(crate) queues: Vec<Queue>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Queue {
    pub(crate) id: i32,
    pub(crate) broker: Broker,
    master: bool,
    readable: bool,
    writable: bool,
    accepts: Vec<i32>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Broker {
    pub(crate) name: String,
    pub(crate) endpoints: Endpoints,
}

impl Route {
    /// Queues without a usable address are left out.
    pub(crate) fn from_proto(queues: Vec<pb::MessageQueue>) -> Self {
        Self {
            queues: queues.into_iter().filter_map(Queue::from_proto).collect(),
        }
    }

    /// The same with other addresses of the brokers.
    pub(crate) fn rewritten(mut self, rewrite: &dyn Fn(&str, u16) -> (String, u16)) -> Self {
        for queue in &mut self.queues {
            let broker = &mut queue.broker;
            broker.endpoints = broker.endpoints.clone().rewritten(rewrite);
        }
        self
    }

    /// Each of the brokers once, in the order of the route.
    pub(crate) fn endpoints(&self) -> Vec<&Endpoints> {
        unique(self.queues.iter().map(|it| &it.broker.endpoints))
    }

    /// Brokers from which the topic is received.
    pub(crate) fn readable(&self) -> Vec<&Broker> {
        unique(
            self.queues
                .iter()
                .filter(|it| it.master && it.readable)
                .map(|it| &it.broker),
        )
    }

    /// Where the topic is sent to, each of the servers once.
    pub(crate) fn writable(&self) -> Vec<&Endpoints> {
        unique(self.writable_queues().map(|it| &it.endpoints))
    }

    /// The broker of each queue that takes messages, in the order of the route.
    pub(crate) fn writable_queues(&self) -> impl Iterator<Item = &Broker> {
        let writable = |it: &&Queue| it.master && it.writable;
        self.queues.iter().filter(writable).map(|it| &it.broker)
    }

    /// Whether some queue takes such messages; a server that names no type takes all.
    pub(crate) fn accepts(&self, message_type: MessageType) -> bool {
        let wanted = message_type as i32;
        // A topic whose brokers are away says nothing about its type.
        self.queues.is_empty()
            || self
                .queues
                .iter()
                .any(|it| it.accepts.is_empty() || it.accepts.contains(&wanted))
    }
}

impl Queue {
    fn from_proto(it: pb::MessageQueue) -> Option<Self> {
        let broker = it.broker?;
        let endpoints = Endpoints::from_proto(broker.endpoints.as_ref()?)?;
        // A proxy that has not heard of the topic's type yet names this one.
        let mut accepts = it.accept_message_types;
        accepts.retain(|it| *it != MessageType::Unspecified as i32);
        let permission = Permission::try_from(it.permission).unwrap_or_default();
        Some(Self {
            id: it.id,
            broker: Broker {
                name: broker.name,
                endpoints,
            },
            master: broker.id == MASTER,
            readable: matches!(permission, Permission::Read | Permission::ReadWrite),
            writable: matches!(permission, Permission::Write | Permission::ReadWrite),
            accepts,
        })
    }
}

fn unique<T: PartialEq>(items: impl Iterator<Item = T>) -> Vec<T> {
    let mut found = Vec::new();
    for item in items {
        if !found.contains(&item) {
            found.push(item);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(broker: &str, id: i32, permission: Permission, broker_id: i32) -> pb::MessageQueue {
        pb::MessageQueue {
            topic: None,
            id,
            permission: permission.into(),
            broker: Some(pb::Broker {
                name: broker.to_owned(),
                id: broker_id,
                endpoints: Some(
                    format!("{broker}:1")
                        .parse::<Endpoints>()
                        .unwrap()
                        .to_proto(),
                ),
            }),
            accept_message_types: vec![MessageType::Normal.into()],
        }
    }

    #[test]
    fn reads_and_writes_go_to_masters_that_permit_them_each_broker_once() {
        let route = Route::from_proto(vec![
            queue("a", 0, Permission::ReadWrite, 0),
            queue("a", 1, Permission::ReadWrite, 0),
            queue("b", 0, Permission::Read, 0),
            queue("c", 0, Permission::ReadWrite, 1),
            queue("d", 0, Permission::None, 0),
            pb::MessageQueue::default(),
        ]);
        let names = |brokers: Vec<&Broker>| -> Vec<String> {
            brokers.into_iter().map(|it| it.name.clone()).collect()
        };
        assert_eq!(names(route.readable()), ["a", "b"]);
        let writable = route.writable();
        assert_eq!(writable, [&"a:1".parse::<Endpoints>().unwrap()]);
        assert_eq!(route.endpoints().len(), 4);
        assert!(route.accepts(MessageType::Normal) && !route.accepts(MessageType::Fifo));
    }
}
