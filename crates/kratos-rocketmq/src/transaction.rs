//! Who answers when the broker asks what became of a transaction.

use std::{collections::BTreeMap, fmt, future::Future, pin::Pin, sync::Arc};

use kratos_broker::{Delivery, Resolution};
use rocketmq_grpc::MessageView;

use crate::consumer;

type Answer = Pin<Box<dyn Future<Output = Resolution> + Send>>;

/// The checkers of a client, by topic.
#[derive(Clone, Default)]
pub(crate) struct Checkers {
    by_topic: BTreeMap<String, Arc<dyn Fn(Delivery) -> Answer + Send + Sync>>,
}

impl Checkers {
    pub(crate) fn insert<F, Fut>(&mut self, topic: String, checker: F)
    where
        F: Fn(Delivery) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Resolution> + Send + 'static,
    {
        let checker = Arc::new(move |delivery| Box::pin(checker(delivery)) as Answer);
        self.by_topic.insert(topic, checker);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.by_topic.is_empty()
    }

    pub(crate) fn has(&self, topic: &str) -> bool {
        self.by_topic.contains_key(topic)
    }

    pub(crate) fn topics(&self) -> impl Iterator<Item = &String> {
        self.by_topic.keys()
    }

    /// What the checker of the message's topic says.
    pub(crate) fn ask(&self, message: MessageView) -> Answer {
        match self.by_topic.get(&*message.topic) {
            Some(checker) => checker(consumer::delivery(&(&*message.topic).into(), message)),
            // Another service may know.
            None => Box::pin(std::future::ready(Resolution::Unknown)),
        }
    }
}

impl fmt::Debug for Checkers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.topics()).finish()
    }
}

/// In the client's words.
pub(crate) fn resolution(resolution: Resolution) -> rocketmq_grpc::Resolution {
    match resolution {
        Resolution::Commit => rocketmq_grpc::Resolution::Commit,
        Resolution::Rollback => rocketmq_grpc::Resolution::Rollback,
        Resolution::Unknown => rocketmq_grpc::Resolution::Unknown,
    }
}
