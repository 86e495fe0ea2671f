//! The consumer of one group.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::oneshot::{Receiver, error::TryRecvError},
    time::{Instant, sleep_until, timeout, timeout_at},
};

use super::{Shared, store::Found};
use crate::{
    Error, ErrorKind, Result, Topic,
    driver::{Consumer, Filter, GroupSpec, Leased, Member, Room, Settled, Settlement, Ticket},
};

/// How long a receive waits for a message.
const LONG_POLL: Duration = Duration::from_secs(20);

/// The consumer of one group on the memory broker.
pub struct MemoryConsumer {
    shared: Arc<Shared>,
    spec: GroupSpec,
    stopped: AtomicBool,
    /// Settlements that wait for the connection, and answers that wait to be heard.
    desk: std::sync::Mutex<Desk>,
    leases: AtomicU64,
    member: Member,
}

/// The right to settle one message.
#[derive(Debug)]
pub struct MemoryLease {
    handle: u64,
    /// Stays, when the handle is replaced.
    number: u64,
}

#[derive(Debug, Default)]
struct Desk {
    queued: Vec<(Ticket, MemoryLease, Settlement)>,
    /// Settlements that count when everything before them in their batch does.
    later: Vec<(Ticket, Receiver<()>)>,
    answers: Vec<Settled>,
}

impl MemoryConsumer {
    pub(super) fn new(shared: Arc<Shared>, spec: GroupSpec, member: Member) -> Self {
        Self {
            shared,
            spec,
            stopped: AtomicBool::new(false),
            desk: std::sync::Mutex::default(),
            leases: AtomicU64::new(0),
            member,
        }
    }

    /// Does the settlements that are queued, if there is a connection. Answers when to look again
    /// for those that wait for others.
    fn work(&self) -> Option<Instant> {
        let mut desk = self.desk();
        let mut state = self.shared.lock();
        if state.faults.connected().is_err() {
            return None;
        }
        for (ticket, lease, how) in std::mem::take(&mut desk.queued) {
            let refused = state.faults.settlement();
            let found = refused.map(|()| state.store.settle(&self.spec.group, lease.handle, how));
            let result = match found {
                Ok(Found::Current) => Ok(()),
                Ok(Found::OutOfDate) => Err(out_of_date()),
                Ok(Found::Later(heard)) => {
                    desk.later.push((ticket, heard));
                    continue;
                }
                Err(error) => Err(error),
            };
            desk.answers.push(Settled { ticket, result });
        }
        let look_again = state.store.release(&self.spec.group);
        drop(state);
        let Desk { later, answers, .. } = &mut *desk;
        later.retain_mut(|(ticket, heard)| {
            let result = match heard.try_recv() {
                Ok(()) => Ok(()),
                Err(TryRecvError::Closed) => Err(comes_again()),
                Err(TryRecvError::Empty) => return true,
            };
            answers.push(Settled {
                ticket: *ticket,
                result,
            });
            false
        });
        look_again.filter(|_| !later.is_empty())
    }

    fn filter(&self, topic: &Topic) -> Result<&Filter> {
        let spec = self.spec.topics.iter().find(|spec| spec.topic == *topic);
        spec.map(|spec| &spec.filter).ok_or_else(|| {
            let group = &self.spec.group;
            let what = format!("topic {topic} is none of the topics of group {group}");
            Error::new(ErrorKind::UnknownTopic, what)
        })
    }

    fn desk(&self) -> std::sync::MutexGuard<'_, Desk> {
        self.desk
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Consumer for MemoryConsumer {
    type Lease = MemoryLease;

    fn attempts_limit(&self) -> Option<u32> {
        Some(self.shared.lock().store.max_attempts)
    }

    fn lag(&self, topic: &Topic) -> Option<u64> {
        let (group, state) = (&self.spec.group, self.shared.lock());
        let held = state.store.held(topic, group);
        let waiting = state.store.backlog(topic, group).saturating_sub(held);
        u64::try_from(waiting).ok()
    }

    async fn receive(&self, topic: &Topic, room: Room) -> Result<Vec<Leased<MemoryLease>>> {
        let filter = self.filter(topic)?;
        let poll_end = Instant::now() + LONG_POLL;
        loop {
            let changed = self.shared.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if self.stopped.load(Ordering::Acquire) {
                return Ok(Vec::new());
            }
            let taken = {
                let mut state = self.shared.lock();
                state.faults.receive()?;
                let GroupSpec {
                    group, invisible, ..
                } = &self.spec;
                state.store.take(group, topic, filter, room, *invisible)
            };
            let look_again = match taken {
                Ok(taken) => {
                    // Others must learn when these become visible again.
                    self.shared.changed.notify_waiters();
                    let lease = |leased: Leased<u64>| {
                        let number = self.leases.fetch_add(1, Ordering::Relaxed);
                        self.member.received(number, &leased.delivery);
                        Leased {
                            delivery: leased.delivery,
                            lease: MemoryLease {
                                handle: leased.lease,
                                number,
                            },
                            expires_at: leased.expires_at,
                            place: leased.place,
                        }
                    };
                    return Ok(taken.into_iter().map(lease).collect());
                }
                Err(at) => at.unwrap_or(poll_end).min(poll_end),
            };
            tokio::select! {
                () = changed => {}
                () = sleep_until(look_again) => {
                    if look_again == poll_end {
                        return Ok(Vec::new());
                    }
                }
            }
        }
    }

    fn settle(&self, ticket: Ticket, lease: MemoryLease, how: Settlement) {
        let how = self.member.settle(lease.number, ticket, how);
        self.desk().queued.push((ticket, lease, how));
        self.work();
        self.shared.changed.notify_waiters();
    }

    async fn settled(&self) -> Vec<Settled> {
        loop {
            let changed = self.shared.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let look_again = self.work();
            let mut answers = std::mem::take(&mut self.desk().answers);
            if !answers.is_empty() {
                answers
                    .iter_mut()
                    .for_each(|answer| self.member.settled(answer));
                return answers;
            }
            match look_again {
                Some(at) => {
                    let _ = timeout_at(at, changed).await;
                }
                None => changed.await,
            }
        }
    }

    async fn extend(&self, lease: &mut MemoryLease, by: Duration) -> Result<Instant> {
        self.member.extend(lease.number)?;
        let mut state = self.shared.lock();
        state.faults.connected()?;
        let (handle, until) = state
            .store
            .extend(lease.handle, by)
            .ok_or_else(out_of_date)?;
        lease.handle = handle;
        drop(state);
        self.shared.changed.notify_waiters();
        Ok(until)
    }

    async fn stop_receiving(&self) {
        self.stopped.store(true, Ordering::Release);
        self.shared.changed.notify_waiters();
    }

    async fn close(self, by: Instant) -> Result<()> {
        // What is queued for a connection that is away is lost with us, as on a real broker.
        let left = by.saturating_duration_since(Instant::now());
        let flushed = timeout(left, async {
            loop {
                let changed = self.shared.changed.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                self.work();
                if self.desk().queued.is_empty() {
                    return;
                }
                changed.await;
            }
        });
        flushed.await.map_err(|_| {
            let group = &self.spec.group;
            Error::new(
                ErrorKind::Transient,
                format!("group {group}: settlements not confirmed"),
            )
        })
    }
}

/// A group of one member ends with it.
impl Drop for MemoryConsumer {
    fn drop(&mut self) {
        if self.spec.broadcast {
            self.shared.lock().store.remove(&self.spec.group);
        }
    }
}

fn comes_again() -> Error {
    let what = "an earlier message of the batch was given back: this one comes again with it";
    Error::new(ErrorKind::LeaseLost, what)
}

fn out_of_date() -> Error {
    Error::new(ErrorKind::LeaseLost, "the lease is out of date")
}

impl fmt::Debug for MemoryConsumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryConsumer")
            .field("spec", &self.spec)
            .finish_non_exhaustive()
    }
}
