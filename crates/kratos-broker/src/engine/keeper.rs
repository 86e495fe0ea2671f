//! The lease keeper: keeps messages invisible to others while they wait or run here.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::time::{Instant, MissedTickBehavior, timeout_at};

use super::{
    queue::Queue,
    table::{Due, Table},
};
use crate::{Result, driver::Consumer};

/// Most extensions of one group under way at once.
const EXTENSIONS_MAX: usize = 32;

/// How often the table is looked through, as a part of the invisible time: a lease is extended
/// when half of it is left, at the latest an eighth later.
const TICKS_PER_LEASE: u32 = 8;

/// Extends leases until it is dropped, and takes out of their queues what has lost its own.
pub(crate) async fn run<C: Consumer>(
    table: Arc<Table<C>>,
    queues: Vec<Arc<Queue>>,
    invisible: Duration,
) {
    let tick = (invisible / TICKS_PER_LEASE).max(Duration::from_millis(1));
    let mut ticks = tokio::time::interval(tick);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // What ends first comes first.
    let mut waiting: VecDeque<Due<C::Lease>> = VecDeque::new();
    let mut under_way = FuturesUnordered::new();
    loop {
        while under_way.len() < EXTENSIONS_MAX {
            let Some(due) = waiting.pop_front() else {
                break;
            };
            under_way.push(extend(table.consumer().as_ref(), due, invisible));
        }
        tokio::select! {
            Some((due, result)) = under_way.next() => returned(&table, due, result),
            _ = ticks.tick() => {
                table.expire();
                let mut due = table.due(invisible / 2);
                due.sort_by_key(|due| due.expires_at);
                waiting.extend(due);
            }
        }
        let gone = table.take_gone();
        if !gone.is_empty() {
            queues.iter().for_each(|queue| queue.purge(&gone));
        }
    }
}

async fn extend<C: Consumer>(
    consumer: &C,
    mut due: Due<C::Lease>,
    by: Duration,
) -> (Due<C::Lease>, Result<Instant>) {
    // An answer after the end of the lease comes too late.
    let result = match timeout_at(due.expires_at, consumer.extend(&mut due.lease, by)).await {
        Ok(result) => result,
        Err(_) => Err(crate::Error::new(
            crate::ErrorKind::LeaseLost,
            "no answer to an extension",
        )),
    };
    (due, result)
}

fn returned<C: Consumer>(table: &Table<C>, due: Due<C::Lease>, result: Result<Instant>) {
    match result {
        Ok(expires_at) => table.extended(due, Some(expires_at)),
        Err(error) if error.is_lease_lost() => table.lost(due.ticket),
        Err(error) => {
            let error = kratos::error_chain(&error);
            tracing::debug!(%error, "could not extend a lease, will try again");
            table.extended(due, None);
        }
    }
}
