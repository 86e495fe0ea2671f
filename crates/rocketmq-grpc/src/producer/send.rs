//! Sending: what one request carries, whom it goes to, and what happens when it fails.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, SystemTime},
};

use rocketmq_proto::v2 as pb;

use super::{Inner, queue, shared};
use crate::{
    Endpoints, Error, Message, convert,
    error::At,
    message::{Packer, validate_body_size, validate_delayed_size},
    route::Route,
    rpc::{Subject, check},
};

/// Longest wait before another attempt, whatever the server's policy says: somebody waits for the send.
const RETRY_DELAY_MAX: Duration = Duration::from_secs(10);

/// What one request carries: a message, or a batch of them.
#[derive(Debug)]
pub(super) struct Parcel {
    topic: String,
    message_type: pb::MessageType,
    group: Option<String>,
    /// One for all attempts.
    request: Arc<pb::SendMessageRequest>,
}

/// What the server says of a parcel that it has stored.
#[derive(Debug)]
pub(super) struct Stored {
    pub(super) endpoints: Endpoints,
    /// One, or one for each message.
    pub(super) entries: Vec<pb::SendResultEntry>,
}

impl Inner {
    /// A message on its own.
    pub(super) async fn pack(
        &self,
        message: &Message,
        message_type: pb::MessageType,
    ) -> Result<Parcel, Error> {
        let packer = self.packer(&message.topic, message_type, self.compress_above);
        let packed = packer.pack(message).await?;
        self.check_size(&message.topic, packed.body.len())?;
        if message_type == pb::MessageType::Delay {
            let bytes_max = self.instance.settings.borrow().max_body_size;
            let stored = packer.stored_size(message, packed.body.len());
            validate_delayed_size(&message.topic, stored, bytes_max)?;
        }
        Ok(Parcel {
            topic: message.topic.clone(),
            message_type,
            group: message.message_group().map(str::to_owned),
            request: request(vec![packed]),
        })
    }

    /// Several, which the server takes together or not at all. There is at least one.
    pub(super) async fn pack_batch(&self, messages: &[Message]) -> Result<Parcel, Error> {
        let topic = messages.first().map_or("", |it| &it.topic);
        let message_type = pb::MessageType::Normal;
        // The server keeps one encoding for all.
        let packer = self.packer(topic, message_type, None);
        let mut packed = Vec::with_capacity(messages.len());
        let mut stored_bytes = 0;
        for message in messages {
            self.check_size(topic, message.body.len())?;
            stored_bytes += packer.stored_size(message, message.body.len());
            packed.push(packer.pack(message).await?);
        }
        let bytes_max = self.instance.settings.borrow().max_body_size;
        if stored_bytes > bytes_max && messages.len() > 1 {
            return Err(Error::invalid(format!(
                "the messages of a batch for {topic} have {stored_bytes} bytes together, with all \
                 that is stored beside their bodies: the server takes {bytes_max}"
            )));
        }
        Ok(Parcel {
            topic: topic.to_owned(),
            message_type,
            group: None,
            request: request(packed),
        })
    }

    /// Sends until it is stored, attempts are used up, or there is no point in another.
    pub(super) async fn deliver(&self, mut parcel: Parcel) -> Result<Stored, Error> {
        let closed = || Error::closed("producer");
        let stop = &self.instance.stop;
        let route = stop.run_until_cancelled(self.route_for(&parcel));
        let route = route.await.ok_or_else(closed)??;
        let sent = stop.run_until_cancelled(self.attempts(&mut parcel, &route));
        sent.await
            .unwrap_or_else(|| Err(closed().with_message_under_way()))
    }

    fn packer(
        &self,
        topic: &str,
        message_type: pb::MessageType,
        compress_above: Option<usize>,
    ) -> Packer<'_> {
        Packer {
            topic: self.instance.resource(topic),
            message_type,
            born_host: &self.instance.shared.config.name,
            compress_above,
        }
    }

    fn check_size(&self, topic: &str, bytes: usize) -> Result<(), Error> {
        let bytes_max = self.instance.settings.borrow().max_body_size;
        validate_body_size(topic, bytes, bytes_max)
    }

    async fn route_for(&self, parcel: &Parcel) -> Result<Arc<Route>, Error> {
        let route = self.instance.route(&parcel.topic).await?;
        let validate = self.instance.settings.borrow().validate_message_type;
        if !validate || self.check_type(parcel, &route).is_ok() {
            return Ok(route);
        }
        self.instance.doubt_route(&parcel.topic);
        let route = self.instance.route(&parcel.topic).await?;
        self.check_type(parcel, &route)?;
        Ok(route)
    }

    async fn attempts(&self, parcel: &mut Parcel, route: &Route) -> Result<Stored, Error> {
        let servers = self.candidates(parcel, route)?;
        let mut maybe_stored = None;
        let mut reached = false;
        let mut next = 0;
        let mut attempt = 1;
        loop {
            let endpoints = servers[next];
            let error = match self.attempt(parcel, endpoints).await {
                Ok(stored) => return Ok(stored),
                Err(error) => error,
            };
            self.instance.react(endpoints, &error);
            if error.is_wrong_topic_type() || error.is_unknown_topic() {
                self.instance.doubt_route(&parcel.topic);
            }
            if error.is_disconnected() || error.is_timeout() {
                self.instance
                    .shared
                    .connection(endpoints)?
                    .set_isolated(true);
            }
            if !error.is_retryable() || attempt >= self.attempts_max {
                return Err(error.after_maybe_stored(maybe_stored));
            }
            next = (next + 1) % servers.len();
            reached |= !error.is_disconnected();
            // Another server can be asked at once, the same one needs a moment. If none of them was
            // there, the last attempt is not wasted on the same moment.
            let all_asked = next == 0;
            let none_is_there = !reached && (all_asked || attempt + 1 == self.attempts_max);
            if error.is_throttled() || all_asked || none_is_there {
                tokio::time::sleep(self.delay(attempt)).await;
            }
            if none_is_there || (all_asked && error.is_disconnected()) {
                next = self.instance.until_ready(&servers, next).await;
            }
            if error.may_be_stored() {
                maybe_stored = Some(error);
            }
            attempt += 1;
        }
    }

    async fn attempt(&self, parcel: &mut Parcel, endpoints: &Endpoints) -> Result<Stored, Error> {
        let rpc = self.instance.rpc(endpoints)?;
        let born_at = convert::proto_time(SystemTime::now());
        // A copy, if the attempt before is not quite gone yet.
        for message in &mut Arc::make_mut(&mut parcel.request).messages {
            if let Some(system) = &mut message.system_properties {
                system.born_timestamp = Some(born_at);
            }
        }
        let request = parcel.request.clone();
        let subject = Subject {
            topic: Some(&parcel.topic),
            group: None,
        };
        let timeout = self.instance.request_timeout();
        let (answer, id) = rpc
            .call_any("send", subject, request, timeout, |_, rq| {
                shared::send_message(rpc.connection.channel(), rq)
            })
            .await?;
        let at = || rpc.at("send", subject, id);
        let entries = &answer.entries;
        if entries.is_empty() {
            check(answer.status.as_ref(), at)?;
            return Err(Error::protocol(
                "the answer has no entry for the message",
                at(),
            ));
        }
        // The entry decides; a server that leaves its status out means that of the answer.
        let results = entries
            .iter()
            .map(|it| check(it.status.as_ref().or(answer.status.as_ref()), at));
        let failed: Vec<_> = results.filter_map(Result::err).collect();
        let some_stored = failed.len() < entries.len();
        match failed.into_iter().next() {
            Some(error) if some_stored => return Err(error.with_message_under_way()),
            Some(error) => return Err(error),
            None => {}
        }
        // Apache's proxy has one entry for a whole batch, others have one for each message.
        if entries.len() != 1 && entries.len() != parcel.request.messages.len() {
            let (entries, messages) = (entries.len(), parcel.request.messages.len());
            let what = format!("the answer has {entries} entries for {messages} messages");
            return Err(Error::protocol(what, at()));
        }
        Ok(Stored {
            endpoints: endpoints.clone(),
            entries: answer.entries,
        })
    }

    /// Servers in the order in which they are tried: those that work first, beginning with that of
    /// the next broker in turn. Of a message group it is always the same one: another would break its
    /// order. A proxy before several brokers is one server.
    fn candidates<'a>(
        &self,
        parcel: &Parcel,
        route: &'a Route,
    ) -> Result<Vec<&'a Endpoints>, Error> {
        let no_queue = || Error::no_queue(&parcel.topic, "writable");
        if let Some(group) = &parcel.group {
            let broker = queue::of_group(route, group).ok_or_else(no_queue)?;
            return Ok(vec![&broker.endpoints]);
        }
        let mut servers = route.writable();
        if servers.is_empty() {
            return Err(no_queue());
        }
        let turn = self.next_broker.fetch_add(1, Ordering::Relaxed) % servers.len();
        servers.rotate_left(turn);
        if servers.len() > 1 {
            servers.sort_by_key(|it| self.is_isolated(it));
        }
        Ok(servers)
    }

    fn is_isolated(&self, endpoints: &Endpoints) -> bool {
        self.instance
            .shared
            .connection(endpoints)
            .is_ok_and(|it| it.is_isolated())
    }

    fn check_type(&self, parcel: &Parcel, route: &Route) -> Result<(), Error> {
        let kind = parcel.message_type;
        if route.accepts(kind) {
            return Ok(());
        }
        let at = At {
            operation: "send",
            topic: Some(parcel.topic.clone()),
            endpoint: Some(self.instance.shared.access_point.to_string()),
            ..Default::default()
        };
        let code = pb::Code::MessagePropertyConflictWithType as i32;
        let reason = format!("the topic takes no {} messages", kind.as_str_name());
        Err(Error::status(code, &reason, at))
    }

    fn delay(&self, attempt: u32) -> Duration {
        self.instance
            .settings
            .borrow()
            .retry_delays
            .after_attempt(attempt)
            .min(RETRY_DELAY_MAX)
    }
}

fn request(messages: Vec<pb::Message>) -> Arc<pb::SendMessageRequest> {
    Arc::new(pb::SendMessageRequest { messages })
}
