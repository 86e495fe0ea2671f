//! Handing messages out.

use std::{sync::Arc, time::Duration};

use rocketmq_proto::v2::{Code, FilterType};

use crate::state::{
    State, Timestamp,
    cursor::{Invisible, Take},
    filter::Filter,
    group::dead_letter_topic,
    handle::Handle,
    limits::{MAX_BATCH, check_group, check_topic},
    message::Delivered,
    refusal::Refusal,
};

/// What a consumer asks for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ask {
    pub(crate) client: String,
    pub(crate) group: String,
    pub(crate) topic: String,
    /// An expression of tags or properties; absent means everything.
    pub(crate) filter: Option<(FilterType, String)>,
    pub(crate) batch: i32,
    pub(crate) invisible: Option<Duration>,
    pub(crate) auto_renew: bool,
    pub(crate) attempt_id: Option<String>,
    pub(crate) long_poll: Option<Duration>,
    /// What is left of the call's deadline.
    pub(crate) remaining: Option<Duration>,
    /// The client may not know `ILLEGAL_POLLING_TIME`.
    pub(crate) old_client: bool,
}

/// An [`Ask`] that was found right.
#[derive(Clone, Debug)]
pub(crate) struct Poll {
    pub(crate) topic: Arc<str>,
    pub(crate) wait: Duration,
    group: Arc<str>,
    filter: Filter,
    batch: usize,
    invisible: Invisible,
    client: Arc<str>,
    attempt_id: Option<String>,
}

/// What a receive gets, and how.
#[derive(Clone, Debug, Default)]
pub(crate) struct Answer {
    pub(crate) delivered: Vec<Delivered>,
    /// Time of delivery first, status last.
    pub(crate) status_last: bool,
    /// After so many messages the stream breaks.
    pub(crate) breaks_after: Option<usize>,
}

impl State {
    /// Checks a receive, in the order of the real server, and opens the group's cursor: a new
    /// group's position is set by its first receive.
    pub(crate) fn open_poll(&mut self, ask: Ask) -> Result<Poll, Refusal> {
        let client = self.clients.name(&ask.client).ok_or_else(|| {
            let message = "the client has sent no settings on a telemetry stream";
            Refusal::new(Code::InternalServerError, message)
        })?;
        if self.strict && ask.remaining.is_none() {
            let message = "the call has no deadline: a receive needs the header grpc-timeout";
            return Err(Refusal::new(Code::InternalServerError, message));
        }
        let wait = self.limits.long_poll(ask.long_poll, ask.remaining);
        let wait = wait.map_err(|refusal| match ask.old_client {
            true => Refusal::new(Code::BadRequest, refusal.message),
            false => refusal,
        })?;
        check_topic(&ask.topic)?;
        check_group(&ask.group)?;
        let invisible = if ask.auto_renew {
            Invisible::AutoRenew
        } else {
            let invisible = ask.invisible.unwrap_or_default();
            self.limits.check_receive_invisible(invisible)?;
            Invisible::For(invisible)
        };
        let filter = ask
            .filter
            .as_ref()
            .map_or(Ok(Filter::All), |(kind, text)| Filter::parse(*kind, text))?;
        let batch = usize::try_from(ask.batch).map_err(|_| {
            let message = format!("illegal capacity: {}", ask.batch);
            Refusal::new(Code::InternalServerError, message)
        })?;
        // The real server's receive does not know this code.
        let unknown = |refusal: Refusal| Refusal {
            code: Code::InternalServerError,
            ..refusal
        };
        let topic = Arc::clone(&self.open_topic(&ask.topic).map_err(unknown)?.name);
        let (group, _) = self.open_group(&ask.group)?;
        self.open_cursor(&topic, &group);
        Ok(Poll {
            topic,
            wait,
            group,
            filter,
            batch: batch.min(MAX_BATCH),
            invisible,
            client,
            attempt_id: ask.attempt_id,
        })
    }

    /// Leases the messages that are there for `poll`, up to its batch.
    pub(crate) fn receive(&mut self, now: Timestamp, poll: &Poll) -> Vec<Delivered> {
        let Some(config) = self.groups.get(&poll.group) else {
            return Vec::new();
        };
        let (fifo, max_attempts) = (config.fifo, config.max_attempts());
        let Some(topic) = self.topics.get(&poll.topic) else {
            return Vec::new();
        };
        let cursor = self.cursors.open(topic, &poll.group, fifo);
        let take = Take {
            filter: &poll.filter,
            batch: poll.batch,
            invisible: poll.invisible,
            client: &poll.client,
            attempt_id: poll.attempt_id.as_deref(),
            max_attempts,
        };
        let mut taken = cursor.take(now, &take, topic, &mut self.timers);
        for delivered in &taken.delivered {
            if self.faults.duplicate() {
                cursor.duplicate(delivered.message.place());
                self.ready.insert(Arc::clone(&poll.topic));
            }
        }
        if taken.delivered.len() > 1 && self.faults.reverse() {
            taken.delivered.reverse();
        }
        // In the group's own dead letters it stays where it is, and is not handed out. (The real
        // server moves it from there to there, again with each receive.)
        if dead_letter_topic(&poll.group) == *poll.topic {
            taken.exhausted.clear();
        }
        for message in taken.exhausted {
            self.bury(now, &message, &poll.group, message.spent() + 1);
        }
        taken.delivered
    }

    /// How a receive of these messages is answered.
    pub(crate) fn answer(&mut self, delivered: Vec<Delivered>) -> Answer {
        let breaks_after = if delivered.is_empty() {
            None
        } else {
            self.faults.broken_receives.pop_front()
        };
        Answer {
            status_last: self.limits.status_last || self.faults.status_last,
            delivered,
            breaks_after,
        }
    }

    /// Takes back deliveries whose receive was cancelled before they were written: they are there
    /// for others at once, and no attempt is spent.
    pub(crate) fn hand_back(&mut self, now: Timestamp, deliveries: &[Delivered]) {
        let handles = deliveries
            .iter()
            .filter_map(|d| Handle::decode(&d.handle).ok());
        let handles: Vec<Handle> = handles.collect();
        let Some(first) = handles.first() else { return };
        if let Some(cursor) = self.cursors.get_mut(first.cursor) {
            cursor.hand_back(now, &handles, &mut self.timers);
            self.ready.insert(Arc::clone(&cursor.topic));
        }
    }
}
