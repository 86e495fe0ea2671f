//! The spans of settlements that the broker has not confirmed yet.
//!
//! Settlements of one kind that are under way together share a span: until the first of them is
//! answered, or as many are in it as a span may have links. Drivers send them together as well.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use kratos::trace::SpanContext;
use tracing::Span;

use super::Ticket;
use crate::{
    delivery::Received,
    driver::{Settled, Settlement},
    engine::span::{self, Origin},
};

/// Most settlements of one span: what OpenTelemetry's SDK keeps of links.
const TOGETHER_MAX: usize = 128;

/// Open spans, and whose they are: never more than messages in flight.
///
/// Apart from the table, which need not look here while nothing is recorded.
#[derive(Debug, Default)]
pub(super) struct Spans {
    count: AtomicUsize,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    /// By the ticket of their message: the number of the span, and the message.
    of: HashMap<u64, (u64, Option<Member>)>,
    spans: HashMap<u64, Together>,
    /// Which of the spans others may join. Few.
    joined: Vec<(Arc<Origin>, &'static str, u64)>,
    next: u64,
}

/// Settlements that share a span.
#[derive(Debug)]
struct Together {
    span: Span,
    /// Who is answered, to be linked.
    members: Vec<Member>,
    waiting: usize,
    failed: Option<&'static str>,
}

/// A message whose settlement is told in a span with others.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) message: Received,
    pub(crate) attempt: SpanContext,
    /// Why it was not settled.
    pub(crate) failed: Option<&'static str>,
}

// === impl Spans ===

impl Spans {
    /// A settlement is about to be asked for, in a span of the caller's.
    pub(super) fn open(&self, ticket: Ticket, span: Span) {
        let mut open = self.lock();
        let number = open.begin(span);
        let replaced = open.add(number, ticket, None);
        self.count.store(open.of.len(), Relaxed);
        drop(open);
        end(replaced);
    }

    /// The same, in a span that it may share; `start` makes one.
    pub(super) fn join(
        &self,
        ticket: Ticket,
        member: Member,
        origin: &Arc<Origin>,
        how: Settlement,
        start: impl FnOnce() -> Span,
    ) {
        let operation = how.operation();
        let mut open = self.lock();
        let number = match open.joinable(origin, operation) {
            Some(number) => number,
            None => {
                // Not under the lock: who takes spans may be slow.
                drop(open);
                let span = start();
                open = self.lock();
                let number = open.begin(span);
                open.joined.push((origin.clone(), operation, number));
                number
            }
        };
        let replaced = open.add(number, ticket, Some(member));
        self.count.store(open.of.len(), Relaxed);
        drop(open);
        end(replaced);
    }

    /// The driver has answered these.
    pub(super) fn answered(&self, answers: &[Settled]) {
        // Who has opened one has done so before the driver knew of the settlement.
        if self.count.load(Relaxed) == 0 {
            return;
        }
        let mut open = self.lock();
        let over: Vec<_> = answers
            .iter()
            .filter_map(|answer| {
                let failed = answer.result.as_ref().err();
                open.answer(answer.ticket, failed.map(|error| error.kind().as_str()))
            })
            .collect();
        self.count.store(open.of.len(), Relaxed);
        drop(open);
        end(over);
    }

    /// A message is gone, and nobody will answer.
    pub(super) fn lost(&self, ticket: Ticket) {
        if self.count.load(Relaxed) == 0 {
            return;
        }
        let mut open = self.lock();
        let over = open.answer(ticket, Some("lease_lost"));
        self.count.store(open.of.len(), Relaxed);
        drop(open);
        end(over);
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Not under the lock: who takes spans may be slow.
fn end(over: impl IntoIterator<Item = Together>) {
    for Together {
        span,
        members,
        failed,
        ..
    } in over
    {
        span::settled_together(&span, &members);
        if let Some(error_type) = failed {
            span::failed_as(&span, error_type);
        }
    }
}

// === impl Open ===

impl Open {
    fn begin(&mut self, span: Span) -> u64 {
        self.next += 1;
        let together = Together {
            span,
            members: Vec::new(),
            waiting: 0,
            failed: None,
        };
        self.spans.insert(self.next, together);
        self.next
    }

    fn joinable(&self, origin: &Arc<Origin>, operation: &str) -> Option<u64> {
        let mut joined = self.joined.iter();
        let found = joined.find(|(of, it, _)| *it == operation && Arc::ptr_eq(of, origin));
        found.map(|(.., number)| *number)
    }

    /// Answers a span that is over by this: a message is settled once, but for one whose dead
    /// letter could not be published.
    fn add(&mut self, number: u64, ticket: Ticket, member: Option<Member>) -> Option<Together> {
        let replaced = self.answer(ticket, None);
        if let Some(together) = self.spans.get_mut(&number) {
            together.waiting += 1;
            if together.waiting >= TOGETHER_MAX {
                self.joined.retain(|(.., it)| *it != number);
            }
        }
        self.of.insert(ticket.number(), (number, member));
        replaced
    }

    /// Answers the span if this was the last that it waited for.
    fn answer(&mut self, ticket: Ticket, failed: Option<&'static str>) -> Option<Together> {
        let (number, member) = self.of.remove(&ticket.number())?;
        self.joined.retain(|(.., it)| *it != number);
        let together = self.spans.get_mut(&number)?;
        together
            .members
            .extend(member.map(|member| Member { failed, ..member }));
        together.failed = together.failed.or(failed);
        together.waiting -= 1;
        if together.waiting > 0 {
            return None;
        }
        self.spans.remove(&number)
    }
}
