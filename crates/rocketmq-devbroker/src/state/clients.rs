//! Who is connected, and what the broker tells them.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use rocketmq_proto::v2::{ClientType, Code};

use crate::state::{
    State, Timestamp,
    filter::Filter,
    group::GroupConfig,
    limits::{check_group, check_topic},
    message::Stored,
    refusal::Refusal,
};

/// How long after its client has left a message that the broker renewed is seen again.
const CLEARED_AFTER: Duration = Duration::from_secs(1);

/// How long the settings of a client without a telemetry stream are kept, so that one that connects
/// again is not refused meanwhile.
const ABSENT_FORGOTTEN_AFTER: Duration = Duration::from_secs(120);

/// The types that may subscribe.
const CONSUMERS: [ClientType; 3] = [
    ClientType::PushConsumer,
    ClientType::SimpleConsumer,
    ClientType::LitePushConsumer,
];

/// What a client says about itself in its settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Producer {
        topics: Vec<String>,
    },
    Consumer {
        kind: ClientType,
        group: String,
        subscriptions: Vec<Subscription>,
    },
}

/// Who signs a client's calls, as it says itself where nobody has to sign.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Signer {
    pub(crate) access_key: Option<String>,
    pub(crate) session_token: Option<String>,
}

/// What a consumer subscribes to.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Subscription {
    /// The topic.
    pub topic: String,
    /// The expression that picks messages; none for all.
    pub filter: Option<String>,
    /// Whether the expression is about properties (SQL) rather than tags.
    pub is_sql: bool,
}

impl Subscription {
    fn check(&self) -> Result<(), Refusal> {
        if self.is_sql && self.filter.as_deref().is_none_or(str::is_empty) {
            let message = "expression format is not correct";
            return Err(Refusal::new(Code::IllegalFilterExpression, message));
        }
        match &self.filter {
            // Of a condition, the real server takes anything here; the receive is refused.
            Some(tags) if !self.is_sql => Filter::tags(tags).map(|_| ()),
            _ => Ok(()),
        }
    }
}

/// What the broker answers to settings.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Terms {
    Producer {
        max_body_bytes: usize,
    },
    Consumer {
        group: GroupConfig,
        max_long_poll: Duration,
    },
}

/// What the broker tells a client without being asked.
#[derive(Clone, Debug)]
pub(crate) enum Push {
    /// What became of this transaction?
    RecoverTransaction(Arc<Stored>),
}

/// A client that has sent settings.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    pub(crate) name: Arc<str>,
    pub(crate) role: Role,
    pub(crate) signer: Signer,
    /// Open telemetry streams.
    streams: u32,
    /// When the last stream ended.
    left_at: Option<Timestamp>,
}

/// All clients by id.
#[derive(Debug, Default)]
pub(crate) struct Clients {
    all: HashMap<Arc<str>, Client>,
    /// Commands that are not on their way yet.
    pushes: VecDeque<(Arc<str>, Push)>,
    /// Whose turn it is among the producers of a topic.
    turn: usize,
}

impl Clients {
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }

    pub(crate) fn name(&self, id: &str) -> Option<Arc<str>> {
        self.all.get(id).map(|client| Arc::clone(&client.name))
    }

    pub(crate) fn is_connected(&self, id: &str) -> bool {
        self.all
            .get(id)
            .is_some_and(|client| client.left_at.is_none())
    }

    pub(crate) fn connected(&self) -> impl Iterator<Item = &Client> {
        self.all.values().filter(|client| client.left_at.is_none())
    }

    /// The next of the producers that have named the topic in their settings, in turn.
    pub(crate) fn next_producer(&mut self, topic: &str) -> Option<Arc<str>> {
        let publishes = |client: &&Client| match &client.role {
            Role::Producer { topics } => topics.iter().any(|t| t == topic),
            Role::Consumer { .. } => false,
        };
        let mut producers: Vec<&Arc<str>> = self
            .connected()
            .filter(publishes)
            .map(|client| &client.name)
            .collect();
        producers.sort();
        let chosen = producers.get(self.turn % producers.len().max(1));
        let chosen = chosen.map(|name| Arc::clone(name));
        self.turn = self.turn.wrapping_add(1);
        chosen
    }

    pub(crate) fn push(&mut self, client: Arc<str>, push: Push) {
        self.pushes.push_back((client, push));
    }

    pub(crate) fn take_pushes(&mut self) -> Vec<(Arc<str>, Push)> {
        self.pushes.drain(..).collect()
    }

    fn forget_absent(&mut self, now: Timestamp) {
        let stays = |left: Timestamp| now.since(left) < ABSENT_FORGOTTEN_AFTER;
        self.all
            .retain(|_, client| client.left_at.is_none_or(stays));
    }
}

impl State {
    /// Takes a client's settings and answers with the broker's terms. `first` is true for the
    /// first settings on a telemetry stream.
    pub(crate) fn register(
        &mut self,
        now: Timestamp,
        client: &str,
        role: Role,
        first: bool,
    ) -> Result<Terms, Refusal> {
        let terms = match &role {
            Role::Producer { topics } => {
                topics.iter().try_for_each(|topic| check_topic(topic))?;
                Terms::Producer {
                    max_body_bytes: self.limits.max_body_bytes,
                }
            }
            Role::Consumer { kind, .. } if !CONSUMERS.contains(kind) => {
                let kind = kind.as_str_name();
                let message = format!("client type is not consumer, type: {kind}");
                return Err(Refusal::new(Code::Unsupported, message));
            }
            Role::Consumer {
                kind,
                group,
                subscriptions,
            } => {
                subscriptions.iter().try_for_each(Subscription::check)?;
                check_group(group)?;
                let name = group;
                let group = self.open_group(name)?.1.clone();
                if *kind == ClientType::LitePushConsumer {
                    let message = format!("regular group cannot use LITE mode: {name}");
                    return Err(Refusal::new(Code::IllegalConsumerGroup, message));
                }
                Terms::Consumer {
                    group,
                    max_long_poll: self.limits.max_long_poll,
                }
            }
        };
        self.clients.forget_absent(now);
        let name: Arc<str> = client.into();
        let known = self.clients.all.entry(Arc::clone(&name));
        let new = Client {
            name,
            role: role.clone(),
            signer: Signer::default(),
            streams: 0,
            left_at: None,
        };
        let known = known.or_insert(new);
        known.role = role;
        known.left_at = None;
        known.streams += u32::from(first);
        Ok(terms)
    }

    /// Remembers who has signed the client's telemetry stream.
    pub(crate) fn signed_by(&mut self, client: &str, signer: &Signer) {
        if let Some(known) = self.clients.all.get_mut(client) {
            known.signer = signer.clone();
        }
    }

    /// A telemetry stream of the client has ended. With the last one it counts as gone.
    pub(crate) fn stream_ended(&mut self, now: Timestamp, client: &str) {
        if let Some(known) = self.clients.all.get_mut(client) {
            known.streams = known.streams.saturating_sub(1);
            known.left_at = (known.streams == 0).then_some(now);
        }
    }

    pub(crate) fn heartbeat(&mut self, client: &str, group: &str) -> Result<(), Refusal> {
        let known = self.known_client(client)?;
        if let Role::Consumer { .. } = known.role {
            check_group(group)?;
            self.open_group(group).map_err(|refusal| Refusal {
                code: Code::IllegalConsumerGroup,
                ..refusal
            })?;
        }
        Ok(())
    }

    /// The client says that it leaves: leases that the broker renews for it end soon.
    pub(crate) fn terminate(
        &mut self,
        now: Timestamp,
        client: &str,
        group: &str,
    ) -> Result<(), Refusal> {
        let consumer = matches!(self.known_client(client)?.role, Role::Consumer { .. });
        self.clients.all.remove(client);
        for cursor in self.cursors.iter_mut() {
            cursor.end_leases(now.plus(CLEARED_AFTER), Some(client), &mut self.timers);
        }
        // Too late to stay, as on the real server.
        if consumer { check_group(group) } else { Ok(()) }
    }

    /// Every client is gone: the broker's serving side went away.
    pub(crate) fn forget_clients(&mut self) {
        self.clients.all.clear();
        self.transactions.forget_tickets();
    }

    /// Some calls of a client without settings fail in the real server.
    pub(crate) fn check_introduced(&self, client: &str) -> Result<(), Refusal> {
        self.known_client(client).map(|_| ()).map_err(|_| {
            let message = "the client has sent no settings on a telemetry stream";
            Refusal::new(Code::InternalServerError, message)
        })
    }

    fn known_client(&self, client: &str) -> Result<&Client, Refusal> {
        self.clients.all.get(client).ok_or_else(|| {
            let message = "cannot find client settings for this client";
            Refusal::new(Code::UnrecognizedClientType, message)
        })
    }
}
