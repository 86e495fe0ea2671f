//! What both servers are asked.

mod dead_letter;
mod delay;
mod fifo;
mod filter;
mod headers;
mod namespace;
mod properties;
mod receive;
mod registration;
mod route;
mod send;
mod settle;
mod transaction;
mod unimplemented;

use futures_util::future::LocalBoxFuture;
use rocketmq_devbroker::TopicType;

use super::{caller::seconds, scene::Scene};

/// Calls with topics and groups of their own.
pub(crate) struct Part {
    pub(crate) name: &'static str,
    pub(crate) topics: &'static [Topic],
    pub(crate) groups: &'static [Group],
    pub(crate) run: for<'a> fn(&'a mut Scene) -> LocalBoxFuture<'a, ()>,
}

pub(crate) struct Topic {
    pub(crate) name: &'static str,
    pub(crate) kind: TopicType,
    pub(crate) queues: u32,
}

pub(crate) struct Group {
    pub(crate) name: &'static str,
    pub(crate) fifo: bool,
    pub(crate) retry: u32,
}

const fn topic(name: &'static str, kind: TopicType, queues: u32) -> Topic {
    Topic { name, kind, queues }
}

const fn group(name: &'static str) -> Group {
    Group {
        name,
        fifo: false,
        retry: 16,
    }
}

const fn ordered(name: &'static str) -> Group {
    Group {
        name,
        fifo: true,
        retry: 16,
    }
}

/// Parts that are played at the same time, one act after the other.
pub(crate) fn acts() -> [Vec<Part>; 2] {
    let mut parts = vec![
        headers::PART,
        route::PART,
        registration::SETTINGS,
        registration::HEARTBEAT,
        registration::TERMINATION,
        send::PART,
        properties::PART,
        receive::PART,
        receive::QUEUES,
        receive::FILTERS,
        receive::SQL,
        receive::BATCHES,
        settle::ACK,
        settle::CHANGES,
        settle::REPLACEMENTS,
        settle::LAPSES,
        settle::SUSPENSIONS,
        dead_letter::FORWARD,
        dead_letter::KINDS,
        dead_letter::EXHAUSTED,
        delay::PART,
        filter::BY_TAG,
        filter::BY_SQL,
        namespace::PART,
        unimplemented::PART,
    ];
    parts.extend(fifo::parts());
    [parts, vec![transaction::PART]]
}
