//! One reading of a dead-letter topic.

use std::{
    collections::{HashSet, VecDeque},
    pin::pin,
    time::Duration,
};

use futures_util::{StreamExt, stream};
use kratos::{AppInfo, StartContext};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::{DeadLetterView, Replay, ReplayEnded, ReplayReport};
use crate::{
    Consumer, Error, MessageId, Publisher, Result, Settlement,
    clock::from_now,
    driver::{Driver, Filter, GroupSpec, Leased, Room, Ticket, TopicSpec},
};

/// How long to try to join the reader's group.
const JOIN_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a broker may need to hear everywhere of a group that was just made.
const KNOWN_WITHIN: Duration = Duration::from_secs(5);

/// How long the broker hides a letter that is held here; it is extended half-way.
const INVISIBLE: Duration = Duration::from_secs(60);

/// Letters that are read at once.
const BATCH: usize = 16;

/// Bytes of letters that are read at once.
const BATCH_BYTES: usize = 16 * 1024 * 1024;

/// Most letters that are held because nobody wants them now.
const HELD_MAX: usize = 10_000;

/// Leases that are extended at the same time.
const EXTEND_AT_ONCE: usize = 16;

/// How long to wait before reading again after a failure.
const PAUSE: Duration = Duration::from_millis(500);

/// How long to wait for the confirmation of an acknowledgement, and of everything at the end.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(10);

pub(super) struct Scan<'r, D: Driver> {
    replay: &'r Replay,
    consumer: D::Consumer,
    /// Read, and not looked at yet.
    fresh: VecDeque<Leased<LeaseOf<D>>>,
    /// To be handed back at the end.
    held: Vec<Held<LeaseOf<D>>>,
    /// What letters became in this run; at most as many as it sends.
    made: HashSet<MessageId>,
    next_send: Instant,
    next_extend: Instant,
    report: ReplayReport,
}

type LeaseOf<D> = <<D as Driver>::Consumer as Consumer>::Lease;

struct Held<L> {
    lease: L,
    expires_at: Instant,
}

impl<'r, D: Driver> Scan<'r, D> {
    pub(super) async fn join(replay: &'r Replay, driver: &D) -> Result<Self> {
        if replay.to.as_ref() == Some(&replay.from) {
            let topic = &replay.from;
            let what = format!("dead letters of {topic} sent back to {topic} would be read again");
            return Err(Error::invalid(what));
        }
        let info = AppInfo::new("dead-letters", env!("CARGO_PKG_VERSION"));
        let (deadline, known_by) = (from_now(JOIN_TIMEOUT), from_now(KNOWN_WITHIN));
        let topic = TopicSpec::new(&replay.from, Filter::All);
        let spec = GroupSpec::new(&replay.reader, vec![topic], INVISIBLE);
        let consumer = loop {
            let cx = StartContext::detached(info.clone(), deadline);
            match driver.consumer(spec.clone(), cx).await {
                Ok(consumer) => break consumer,
                Err(error) if error.is_transient() && Instant::now() < deadline => {}
                Err(error) if error.is_unknown_group() && Instant::now() < known_by => {}
                Err(error) => return Err(error),
            }
            sleep(PAUSE).await;
        };
        let scan = Self {
            replay,
            consumer,
            fresh: VecDeque::new(),
            held: Vec::new(),
            made: HashSet::new(),
            next_send: Instant::now(),
            next_extend: Instant::now(),
            report: ReplayReport {
                seen: 0,
                matched: 0,
                died_again: 0,
                replayed: 0,
                unconfirmed: 0,
                ended: ReplayEnded::Exhausted,
            },
        };
        if let Err(error) = scan.check_attempts() {
            scan.close().await;
            return Err(error);
        }
        Ok(scan)
    }

    fn check_attempts(&self) -> Result<()> {
        let (wanted, group) = (self.replay.attempts_min, &self.replay.reader);
        match self.consumer.attempts_limit() {
            Some(limit) if limit < wanted => {
                let help = self.consumer.how_to_raise_attempts(wanted);
                let help = help.map(|help| format!(": {help}")).unwrap_or_default();
                Err(Error::invalid(format!(
                    "group {group} gives a message {limit} attempts; to read dead letters it needs \
                     {wanted}, since their attempts go on{help}"
                )))
            }
            _ => Ok(()),
        }
    }

    /// Reads, and sends back with a publisher; in the end everything that was not settled is handed
    /// back.
    pub(super) async fn run(
        mut self,
        publisher: Option<&Publisher<D>>,
        stop: impl Future<Output = ()>,
        each: &mut impl FnMut(&DeadLetterView<'_>),
    ) -> Result<ReplayReport> {
        let read = self.read(publisher, stop, each).await;
        let mut report = self.report;
        self.hand_back().await;
        self.close().await;
        match read {
            Ok(ended) => {
                report.ended = ended;
                Ok(report)
            }
            Err(error) if report.replayed > 0 => {
                let what = format!("ended after {} dead letters were replayed", report.replayed);
                Err(Error::new(error.kind(), what).with_source(error))
            }
            Err(error) => Err(error),
        }
    }

    async fn read(
        &mut self,
        publisher: Option<&Publisher<D>>,
        stop: impl Future<Output = ()>,
        each: &mut impl FnMut(&DeadLetterView<'_>),
    ) -> Result<ReplayEnded> {
        let mut stop = pin!(stop);
        loop {
            let Some(leased) = self.fresh.pop_front() else {
                let received = tokio::select! {
                    biased;
                    () = &mut stop => return Ok(ReplayEnded::Stopped),
                    received = self.receive() => received?,
                };
                if received.is_empty() {
                    return Ok(ReplayEnded::Exhausted);
                }
                self.fresh.extend(received);
                continue;
            };
            self.report.seen += 1;
            let delivery = leased.delivery.clone();
            let letter = DeadLetterView::new(&delivery);
            let died_again = self.has_made(&letter);
            self.report.died_again += u64::from(died_again);
            let wanted = !died_again && self.replay.wants(&letter);
            if wanted && self.report.matched >= self.replay.at_most {
                self.hold(leased);
                return Ok(ReplayEnded::AtMost);
            }
            match publisher {
                Some(publisher) if wanted => {
                    let throttled = tokio::select! {
                        biased;
                        () = &mut stop => false,
                        () = sleep_until(self.next_send) => true,
                    };
                    if !throttled {
                        self.hold(leased);
                        return Ok(ReplayEnded::Stopped);
                    }
                    self.send(publisher, leased, &letter).await?;
                    each(&letter);
                }
                _ => {
                    self.hold(leased);
                    if wanted {
                        each(&letter);
                    }
                }
            }
            self.report.matched += u64::from(wanted);
            if self.report.matched >= self.replay.at_most {
                return Ok(ReplayEnded::AtMost);
            }
            if self.held.len() >= HELD_MAX {
                return Ok(ReplayEnded::TooManyUnwanted);
            }
            self.extend().await;
        }
    }

    /// What comes next; nothing if nothing has come for so long.
    async fn receive(&mut self) -> Result<Vec<Leased<LeaseOf<D>>>> {
        let end = from_now(self.replay.idle);
        let room = Room::new(BATCH, BATCH_BYTES);
        let mut last = None;
        while Instant::now() < end {
            let soon = from_now(INVISIBLE / 4).min(end);
            let receive = self.consumer.receive(&self.replay.from, room);
            match tokio::time::timeout_at(soon, receive).await {
                Ok(Ok(received)) if !received.is_empty() => return Ok(received),
                Ok(Ok(_)) => last = None,
                Ok(Err(error)) if error.is_transient() => {
                    last = Some(error);
                    sleep(PAUSE).await;
                }
                Ok(Err(error)) => return Err(error),
                Err(_elapsed) => {}
            }
            self.extend().await;
        }
        last.map_or(Ok(Vec::new()), Err)
    }

    /// Publishes, then acknowledges.
    async fn send(
        &mut self,
        publisher: &Publisher<D>,
        leased: Leased<LeaseOf<D>>,
        letter: &DeadLetterView<'_>,
    ) -> Result<()> {
        let (id, from) = (letter.id(), &self.replay.from);
        let Some(to) = self.replay.destination(letter) else {
            let what = format!(
                "dead letter {id} of {from} does not say which topic it came from: name it, for all \
                 of them, with Replay::to"
            );
            self.hold(leased);
            return Err(Error::invalid(what));
        };
        let what = format!("cannot send dead letter {id} of {from} back to {to}");
        match publisher.publish(letter.message(to)).await {
            Ok(receipt) => self.made.insert(receipt.id),
            Err(error) => {
                self.hold(leased);
                return Err(Error::new(error.kind(), what).with_source(error));
            }
        };
        self.report.replayed += 1;
        self.next_send = self.replay.next_after(Instant::now());
        let ticket = Ticket::new(self.report.replayed);
        self.consumer.settle(ticket, leased.lease, Settlement::Ack);
        let confirmed = timeout(SETTLE_TIMEOUT, self.confirmed(ticket)).await;
        self.report.unconfirmed += u64::from(!confirmed.unwrap_or(false));
        Ok(())
    }

    /// Whether the broker has taken a settlement; passes over the late answers of others.
    /// (By `&mut`: leases can be sent to other threads, and not be shared with them.)
    async fn confirmed(&mut self, ticket: Ticket) -> bool {
        loop {
            for settled in self.consumer.settled().await {
                if settled.ticket == ticket {
                    return settled.result.is_ok();
                }
            }
        }
    }

    /// Whether this run has made the message that died of this letter.
    fn has_made(&self, letter: &DeadLetterView<'_>) -> bool {
        let origin = letter.origin_id().unwrap_or(letter.id());
        self.made.contains(origin)
    }

    fn hold(&mut self, leased: Leased<LeaseOf<D>>) {
        self.held.push(Held {
            lease: leased.lease,
            expires_at: leased.expires_at,
        });
    }

    /// Keeps what is held and what waits invisible to others. What is lost comes again, and is read
    /// again: it is not sent now.
    async fn extend(&mut self) {
        let now = Instant::now();
        if now < self.next_extend {
            return;
        }
        let soon = now + INVISIBLE / 2;
        let consumer = &self.consumer;
        // Collected: a stream of closures over references is not known to be `Send`.
        let mut due = Vec::new();
        for it in self.held.iter_mut().filter(|it| it.expires_at < soon) {
            due.push(extend(consumer, &mut it.lease, &mut it.expires_at));
        }
        for it in self.fresh.iter_mut().filter(|it| it.expires_at < soon) {
            due.push(extend(consumer, &mut it.lease, &mut it.expires_at));
        }
        let mut extended = stream::iter(due).buffer_unordered(EXTEND_AT_ONCE);
        let mut failed = false;
        while let Some(extended) = extended.next().await {
            failed |= !extended;
        }
        drop(extended);
        if failed {
            // Not again with every letter.
            self.next_extend = from_now(PAUSE);
        }
        let now = Instant::now();
        self.held.retain(|it| it.expires_at > now);
        self.fresh.retain(|it| it.expires_at > now);
    }

    /// Hands back what was not sent, when nothing is received any more.
    async fn hand_back(&mut self) {
        self.consumer.stop_receiving().await;
        let room = Room::new(BATCH, BATCH_BYTES);
        let late = timeout(PAUSE, self.consumer.receive(&self.replay.from, room)).await;
        let late = late.into_iter().flatten().flatten();
        let fresh = std::mem::take(&mut self.fresh).into_iter().chain(late);
        let held = std::mem::take(&mut self.held).into_iter();
        let leases = held.map(|it| it.lease).chain(fresh.map(|it| it.lease));
        let mut count = 0_u64;
        for lease in leases {
            count += 1;
            // Numbers that no acknowledgement had.
            let ticket = Ticket::new(u64::MAX - count);
            self.consumer.settle(ticket, lease, Settlement::HandBack);
        }
        let answered = async {
            while count > 0 {
                let settled = self.consumer.settled().await;
                count = count.saturating_sub(settled.len() as u64);
            }
        };
        // Whatever is not confirmed comes back when its lease is over.
        let _ = timeout(SETTLE_TIMEOUT, answered).await;
    }

    async fn close(self) {
        if let Err(error) = self.consumer.close(from_now(SETTLE_TIMEOUT)).await {
            let error = kratos::error_chain(&error);
            tracing::warn!(%error, group = %self.replay.reader, "the reader has not left its group");
        }
    }
}

/// Extends one lease; whether what failed may pass.
async fn extend<C: Consumer>(consumer: &C, lease: &mut C::Lease, expires_at: &mut Instant) -> bool {
    match consumer.extend(lease, INVISIBLE).await {
        Ok(until) => *expires_at = until,
        Err(error) if error.is_lease_lost() => *expires_at = Instant::now(),
        Err(_) => return false,
    }
    true
}
