//! Half messages, their end, and the checks of those that nobody ended.
//!
//! The server keeps two things apart, and what it does when an end comes twice or late follows from
//! that. The broker keeps the half message; every check makes a new copy of it, and only the newest
//! is checked again. The proxy keeps a *ticket* per send and per check for a while; each end spends
//! the newest ticket. A commit delivers whatever became of the other tickets, so one that follows a
//! check may deliver twice, and even after a rollback.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use rocketmq_proto::v2::{Code, TransactionResolution, TransactionSource};

use crate::state::{
    State, Timestamp,
    clients::Push,
    facts::{Journal, Key, Value},
    limits::check_topic,
    message::{Draft, Stored},
    refusal::Refusal,
    timers::{Event, TimerKey},
};

/// How long after a send or a check the transaction may be ended.
const TICKET_TTL: Duration = Duration::from_secs(30);
/// Checks of one half message before it is given up.
const MAX_CHECKS: u32 = 15;
/// The property that names the transaction to consumers.
const ID_PROPERTY: &str = "__transactionId__";
/// The property that counts checks.
const CHECKS_PROPERTY: &str = "TRANSACTION_CHECK_TIMES";
/// The property with the time before the first check, in seconds.
const IMMUNITY_PROPERTY: &str = "CHECK_IMMUNITY_TIME_IN_SECONDS";

/// When half messages are checked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CheckTimes {
    pub(crate) timeout: Duration,
    pub(crate) interval: Duration,
}

impl Default for CheckTimes {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(6),
            interval: Duration::from_secs(30),
        }
    }
}

/// Names a half message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct HalfId(u64);

/// What a producer asks for at the end of a transaction.
#[derive(Clone, Debug)]
pub(crate) struct End<'a> {
    pub(crate) topic: &'a str,
    pub(crate) transaction_id: &'a str,
    pub(crate) resolution: TransactionResolution,
    pub(crate) source: TransactionSource,
}

/// A half message: invisible until it is committed.
#[derive(Debug)]
pub(crate) struct Half {
    pub(crate) draft: Draft,
    pub(crate) prepared_at: Timestamp,
    pub(crate) checks: u32,
    /// Counts copies: only the newest one is checked.
    copy: u32,
    phase: Phase,
    tickets: Vec<Ticket>,
    timer: TimerKey,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Open,
    /// Ended under the ticket of an older copy: found out only by a check that is not sent yet.
    EndedBefore,
    /// Nothing is to come but ends with tickets that are left.
    Over,
}

/// One end that the proxy lets through.
#[derive(Clone, Copy, Debug)]
struct Ticket {
    serial: u64,
    copy: u32,
    checks: u32,
    expires: Timestamp,
}

/// All half messages, and those of a topic and transaction id.
#[derive(Debug, Default)]
pub(crate) struct Transactions {
    halves: BTreeMap<HalfId, Half>,
    named: HashMap<(String, String), Vec<HalfId>>,
    serial: u64,
    offset: u64,
}

impl Half {
    fn is_pending(&self) -> bool {
        self.phase != Phase::Over
    }

    /// How long the producer wants to be left alone, and how long its own end counts.
    fn immunity(&self, times: CheckTimes) -> Option<Duration> {
        let seconds = self.draft.recovery_seconds?;
        Some(u64::try_from(seconds).map_or(times.timeout, Duration::from_secs))
    }

    fn journal(&self, id: HalfId, journal: &mut Journal) {
        let value = || Value::Half {
            draft: Box::new(self.draft.clone()),
            prepared_at: self.prepared_at,
            checks: self.checks,
        };
        journal.set(|| Key::Half(id.0), value);
    }

    /// The message as a consumer or a checking producer sees it.
    fn message(&self, checks: u32) -> Draft {
        let mut draft = self.draft.clone();
        if checks > 0 {
            let count = checks.to_string();
            draft.properties.insert(CHECKS_PROPERTY.to_owned(), count);
        }
        draft
    }
}

impl Transactions {
    /// Half messages whose end nobody knows yet, oldest first.
    pub(crate) fn pending(&self) -> impl Iterator<Item = &Half> {
        self.halves.values().filter(|half| half.is_pending())
    }

    /// Of half messages, and the names that they are found by.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        let named: usize = self.named.values().map(Vec::len).sum();
        self.halves.len().max(named)
    }

    #[cfg(test)]
    pub(crate) fn bytes(&self) -> usize {
        self.halves.values().map(|half| half.draft.size()).sum()
    }

    /// Forgets what the proxy knew: a transaction can be ended after its next check only.
    pub(crate) fn forget_tickets(&mut self) {
        for half in self.halves.values_mut() {
            half.tickets.clear();
        }
    }

    /// Loses them all.
    pub(crate) fn clear(&mut self, journal: &mut Journal) {
        while let Some((id, _)) = self.halves.pop_first() {
            journal.end(|| Key::Half(id.0));
        }
        self.named.clear();
    }

    fn next_serial(&mut self) -> u64 {
        self.serial += 1;
        self.serial
    }

    /// Spends the newest ticket of a transaction.
    fn spend(&mut self, now: Timestamp, end: &End<'_>) -> Option<(HalfId, Ticket)> {
        let key = (end.topic.to_owned(), end.transaction_id.to_owned());
        let tickets = self.named.get(&key)?.iter().filter_map(|id| {
            let tickets = &self.halves.get(id)?.tickets;
            let last = tickets.last().filter(|ticket| ticket.expires > now)?;
            Some((*id, *last))
        });
        let (id, ticket) = tickets.max_by_key(|(_, ticket)| ticket.serial)?;
        self.halves.get_mut(&id)?.tickets.pop();
        Some((id, ticket))
    }

    fn remove(&mut self, id: HalfId) -> Option<Half> {
        let half = self.halves.remove(&id)?;
        let key = (half.draft.topic.clone(), half.draft.id.clone());
        if let Some(ids) = self.named.get_mut(&key) {
            ids.retain(|other| *other != id);
            if ids.is_empty() {
                self.named.remove(&key);
            }
        }
        Some(half)
    }
}

impl State {
    /// Keeps a half message and returns its offset among them all.
    pub(crate) fn prepare(&mut self, now: Timestamp, mut draft: Draft) -> u64 {
        let properties = &mut draft.properties;
        properties.insert(ID_PROPERTY.to_owned(), draft.id.clone());
        if let Some(seconds) = draft.recovery_seconds {
            properties.insert(IMMUNITY_PROPERTY.to_owned(), seconds.to_string());
        }
        self.stored_bytes += draft.size();
        let serial = self.transactions.next_serial();
        let id = HalfId(serial);
        let ticket = Ticket {
            serial,
            copy: 0,
            checks: 0,
            expires: now.plus(TICKET_TTL),
        };
        let first_check = now.plus(self.limits.checks.timeout);
        let key = (draft.topic.clone(), draft.id.clone());
        self.transactions.named.entry(key).or_default().push(id);
        let half = Half {
            draft,
            prepared_at: now,
            checks: 0,
            copy: 0,
            phase: Phase::Open,
            tickets: vec![ticket],
            timer: self.timers.add(first_check, Event::Check(id)),
        };
        half.journal(id, &mut self.journal);
        self.transactions.halves.insert(id, half);
        let offset = self.transactions.offset;
        self.transactions.offset += 1;
        offset
    }

    /// Commits or rolls back. Whoever asks, and under which message id, is not looked at; neither
    /// is whether the transaction was ended before, as long as a ticket is left.
    pub(crate) fn end_transaction(&mut self, now: Timestamp, end: &End<'_>) -> Result<(), Refusal> {
        check_topic(end.topic)?;
        if end.transaction_id.trim().is_empty() {
            let message = "transaction id cannot be empty";
            return Err(Refusal::new(Code::InvalidTransactionId, message));
        }
        let (id, ticket) = self.transactions.spend(now, end).ok_or_else(|| {
            Refusal::new(Code::InternalServerError, "cannot found transaction data")
        })?;
        let Some(half) = self.transactions.halves.get_mut(&id) else {
            return Ok(());
        };
        let own = end.source != TransactionSource::SourceServerCheck;
        let late = half
            .immunity(self.limits.checks)
            .is_some_and(|immunity| now.since(half.draft.born_at) > immunity);
        // The broker says no to the proxy, which does not listen: the producer is told OK.
        if (own && late) || end.resolution == TransactionResolution::Unspecified {
            return Ok(());
        }
        if half.phase == Phase::Open {
            self.journal.end(|| Key::Half(id.0));
            if ticket.copy == half.copy {
                half.phase = Phase::Over;
                let until = half.tickets.iter().map(|ticket| ticket.expires).max();
                self.timers.remove(half.timer);
                half.timer = self.timers.add(until.unwrap_or(now), Event::Check(id));
            } else {
                half.phase = Phase::EndedBefore;
            }
        }
        if end.resolution == TransactionResolution::Commit {
            let draft = half.message(ticket.checks);
            self.append(draft, now, None);
        }
        self.advance(now);
        Ok(())
    }

    /// Asks a producer of the topic what became of a half message, or gives it up.
    pub(crate) fn check_half(&mut self, now: Timestamp, id: HalfId) {
        let times = self.limits.checks;
        let serial = self.transactions.next_serial();
        let Some(half) = self.transactions.halves.get_mut(&id) else {
            return;
        };
        let immune = half
            .immunity(times)
            .is_some_and(|immunity| now.since(half.draft.born_at) < immunity);
        let over = match half.phase {
            Phase::Over => true,
            Phase::EndedBefore => immune,
            Phase::Open => false,
        };
        if over || half.checks >= MAX_CHECKS {
            if let Some(half) = self.transactions.remove(id) {
                self.stored_bytes -= half.draft.size();
                self.journal.end(|| Key::Half(id.0));
            }
            return;
        }
        half.checks += 1;
        half.copy += 1;
        half.timer = self.timers.add(now.plus(times.interval), Event::Check(id));
        if half.phase == Phase::Open {
            half.journal(id, &mut self.journal);
        }
        if immune {
            return;
        }
        let Some(client) = self.clients.next_producer(&half.draft.topic) else {
            return;
        };
        half.tickets.retain(|ticket| ticket.expires > now);
        let ticket = Ticket {
            serial,
            copy: half.copy,
            checks: half.checks,
            expires: now.plus(TICKET_TTL),
        };
        half.tickets.push(ticket);
        let offset = self.transactions.offset;
        self.transactions.offset += 1;
        let message = Arc::new(Stored::new(half.message(half.checks), 0, offset, now));
        for _ in 0..=self.faults.repeat_check() {
            let message = Arc::clone(&message);
            let push = Push::RecoverTransaction(message);
            self.clients.push(Arc::clone(&client), push);
        }
    }
}

#[cfg(feature = "persist")]
impl State {
    /// Brings a half message back. Nobody can end it before its next check.
    pub(crate) fn restore_half(
        &mut self,
        now: Timestamp,
        id: u64,
        draft: Draft,
        prepared_at: Timestamp,
        checks: u32,
    ) {
        let id = HalfId(id);
        let key = (draft.topic.clone(), draft.id.clone());
        self.transactions.named.entry(key).or_default().push(id);
        let check = now.plus(self.limits.checks.timeout);
        self.stored_bytes += draft.size();
        let half = Half {
            draft,
            prepared_at,
            checks,
            copy: 0,
            phase: Phase::Open,
            tickets: Vec::new(),
            timer: self.timers.add(check, Event::Check(id)),
        };
        self.transactions.halves.insert(id, half);
    }
}

#[cfg(feature = "persist")]
impl Transactions {
    /// Numbers what comes from here on.
    pub(crate) fn begin_at(&mut self, serial: u64) {
        self.serial = serial;
    }
}
