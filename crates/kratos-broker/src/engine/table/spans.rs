//! The spans of settlements that the broker has not confirmed yet.

use std::{
    collections::HashMap,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use tracing::Span;

use super::Ticket;
use crate::{driver::Settled, engine::span};

/// Open spans, by the ticket of their message: never more than messages in flight.
///
/// Apart from the table, which need not look here while nothing is recorded.
#[derive(Debug, Default)]
pub(super) struct Spans {
    count: AtomicUsize,
    open: Mutex<HashMap<u64, Span>>,
}

// === impl Spans ===

impl Spans {
    pub(super) fn open(&self, ticket: Ticket, span: Span) {
        let mut open = self.lock();
        open.insert(ticket.number(), span);
        self.count.store(open.len(), Relaxed);
    }

    /// The driver has answered: these are over.
    pub(super) fn answered(&self, answers: &[Settled]) {
        // Who has opened one has done so before the driver knew of the settlement.
        if self.count.load(Relaxed) == 0 {
            return;
        }
        for answer in answers {
            let Some(span) = self.take(answer.ticket) else {
                continue;
            };
            if let Err(error) = &answer.result {
                span::failed(&span, error);
            }
        }
    }

    /// A message is gone, and nobody will answer.
    pub(super) fn lost(&self, ticket: Ticket) {
        if self.count.load(Relaxed) > 0
            && let Some(span) = self.take(ticket)
        {
            span.record("error.type", "lease_lost");
            span.record("otel.status_code", "ERROR");
        }
    }

    fn take(&self, ticket: Ticket) -> Option<Span> {
        let mut open = self.lock();
        let span = open.remove(&ticket.number());
        self.count.store(open.len(), Relaxed);
        // It is closed by the caller: who takes it may be slow.
        span
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Span>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
