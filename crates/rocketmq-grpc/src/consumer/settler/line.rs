//! Acknowledgements of one topic for one server: batches, and what becomes of their entries.

use std::sync::{Arc, atomic::Ordering};

use futures_util::{StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use rocketmq_proto::v2::{self as pb, Code};
use tokio::{sync::mpsc, time::Instant};

use super::{Job, LINE_IDLE_MAX, Settler};
use crate::{
    Error, Settlement,
    connection::Connection,
    consumer::acks::AckQueue,
    rpc::{Rpc, Subject},
};

/// Acknowledgements under way: given up if the request is dropped without an answer.
struct Batch<'a> {
    settler: &'a Settler,
    jobs: Vec<Job>,
}

impl Settler {
    pub(super) async fn run_line(
        self: Arc<Self>,
        topic: Arc<str>,
        connection: Arc<Connection>,
        mut jobs: mpsc::UnboundedReceiver<Job>,
    ) {
        const TAKE_MAX: usize = 256;
        let rpc = Rpc {
            identity: self.instance.identity.clone(),
            connection,
        };
        let mut queue = AckQueue::new();
        let mut in_flight: FuturesUnordered<BoxFuture<'_, Vec<(Instant, Job)>>> =
            FuturesUnordered::new();
        let mut taken = Vec::new();
        let mut open = true;
        while open || !queue.is_empty() || !in_flight.is_empty() {
            let hurry = !open || self.hurry.load(Ordering::Relaxed);
            while let Some(batch) = queue.next_batch(Instant::now(), in_flight.len(), hurry) {
                in_flight.push(Box::pin(self.ack(&rpc, &topic, batch)));
            }
            let wake_at = queue.wake_at(in_flight.len());
            tokio::select! {
                count = jobs.recv_many(&mut taken, TAKE_MAX), if open => {
                    open = count > 0;
                    let now = Instant::now();
                    taken.drain(..).for_each(|job| queue.push(job, now));
                }
                Some(failed) = in_flight.next() => {
                    failed.into_iter().for_each(|(at, job)| queue.push_later(job, at));
                }
                () = tokio::time::sleep_until(wake_at.unwrap_or_else(Instant::now)), if wake_at.is_some() => {}
                () = tokio::time::sleep(LINE_IDLE_MAX), if open && wake_at.is_none() && in_flight.is_empty() => {
                    self.retire(&jobs, &rpc.connection, &topic);
                }
                () = self.abort.cancelled() => break,
            }
        }
        // Gives up what is under way, see `Batch`.
        drop(in_flight);
        jobs.close();
        while let Some(job) = jobs.recv().await {
            queue.push(job, Instant::now());
        }
        queue.drain().for_each(|job| self.give_up(job));
    }

    /// One request; returns what is to be tried again, and when.
    async fn ack(&self, rpc: &Rpc, topic: &Arc<str>, batch: Vec<Job>) -> Vec<(Instant, Job)> {
        let batch = Batch {
            settler: self,
            jobs: batch,
        };
        let request = pb::AckMessageRequest {
            group: Some(self.instance.resource(&self.group)),
            topic: Some(self.instance.resource(topic)),
            entries: batch
                .jobs
                .iter()
                .map(|job| pb::AckMessageEntry {
                    message_id: job.grip.message_id.clone(),
                    receipt_handle: job.grip.hold.handle.clone(),
                    lite_topic: None,
                })
                .collect(),
        };
        let subject = Subject {
            topic: Some(topic),
            group: Some(&self.group),
        };
        let timeout = self.instance.request_timeout();
        let messages = batch.jobs.iter().map(Job::traced);
        let spans = &self.instance.spans;
        let span = spans.settle(Settlement::Ack, topic, messages);
        let answer = rpc
            .call_any(
                "ack",
                subject,
                request,
                timeout,
                |mut stub, rq| async move { stub.ack_message(rq).await },
            )
            .await;
        let jobs = batch.into_jobs();
        let (answer, id) = match answer {
            Ok(answered) => answered,
            Err(error) => {
                self.instance.react(rpc.connection.endpoints(), &error);
                let failed = Err::<(), _>(error.clone());
                span.ended(&failed);
                return jobs
                    .into_iter()
                    .filter_map(|job| self.after(job, Err(error.clone())))
                    .collect();
            }
        };
        let at = || rpc.at("ack", subject, id);
        let whole = answer
            .status
            .unwrap_or_else(|| status(Code::InternalError, "no status"));
        // Entries come in the order of the request; if not, they are found by their handles.
        let mut entries: Vec<Option<pb::AckMessageResultEntry>> =
            answer.entries.into_iter().map(Some).collect();
        let mut again = Vec::new();
        let mut first_failed = Ok(());
        for (n, job) in jobs.into_iter().enumerate() {
            let entry = take_entry(&mut entries, n, &job);
            let found = entry
                .and_then(|it| it.status)
                .unwrap_or_else(|| whole.clone());
            let result = if found.code == Code::Ok as i32 {
                Ok(())
            } else if found.code == Code::MultipleResults as i32 {
                Err(Error::status(
                    Code::InternalError as i32,
                    "no result for this entry",
                    at(),
                ))
            } else {
                Err(Error::status(found.code, &found.message, at()))
            };
            if let Err(error) = &result {
                self.instance.react(rpc.connection.endpoints(), error);
                first_failed = first_failed.and_then(|()| Err(error.clone()));
            }
            again.extend(self.after(job, result));
        }
        span.ended(&first_failed);
        again
    }
}

impl Batch<'_> {
    fn into_jobs(mut self) -> Vec<Job> {
        std::mem::take(&mut self.jobs)
    }
}

impl Drop for Batch<'_> {
    fn drop(&mut self) {
        for job in self.jobs.drain(..) {
            self.settler.give_up(job);
        }
    }
}

fn status(code: Code, message: &str) -> pb::Status {
    pb::Status {
        code: code.into(),
        message: message.to_owned(),
    }
}

fn take_entry(
    entries: &mut [Option<pb::AckMessageResultEntry>],
    n: usize,
    job: &Job,
) -> Option<pb::AckMessageResultEntry> {
    let is_his = |it: &pb::AckMessageResultEntry| it.receipt_handle == job.grip.hold.handle;
    if let Some(slot) = entries.get_mut(n)
        && slot.as_ref().is_some_and(is_his)
    {
        return slot.take();
    }
    if let Some(slot) = entries
        .iter_mut()
        .find(|it| it.as_ref().is_some_and(is_his))
    {
        return slot.take();
    }
    // Some servers name the message only.
    let named = |it: &pb::AckMessageResultEntry| {
        it.receipt_handle.is_empty() && it.message_id == job.grip.message_id
    };
    entries
        .iter_mut()
        .find(|it| it.as_ref().is_some_and(named))?
        .take()
}
