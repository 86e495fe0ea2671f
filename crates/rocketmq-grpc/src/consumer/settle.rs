//! What the holder of a lease may do with it.

use std::time::Duration;

use tokio::time::Instant;

use super::Consumer;
use crate::{Error, Lease, Settled, Settlement};

impl Consumer {
    /// Queues what shall become of a message and returns at once; [`settled`](Consumer::settled)
    /// tells the outcome.
    ///
    /// Acknowledgements are sent together, within milliseconds. What fails for a reason that may
    /// pass is tried again as long as the lease lasts. In an orderly group an acknowledgement is
    /// confirmed when all before it in its [batch](crate::BatchPlace) are: do not wait for it
    /// before you settle those.
    ///
    /// May be called from any thread.
    pub fn settle(&self, lease: Lease, how: Settlement) {
        self.settler.settle(lease, how);
    }

    /// The same, with the outcome for whoever asks here.
    pub(crate) fn settle_now(
        &self,
        lease: Lease,
        how: Settlement,
    ) -> impl Future<Output = Result<(), Error>> + use<> {
        self.settler.settle_now(lease, how)
    }

    /// Waits for outcomes of [`settle`](Consumer::settle): at least one. Each is told once.
    ///
    /// Outcomes wait here until they are taken, 65,536 at most; then the oldest are forgotten.
    /// Returns an empty vector only when the consumer is closed and everything is told.
    ///
    /// # Cancel safety
    ///
    /// Dropping the call loses nothing.
    pub async fn settled(&self) -> Vec<Settled> {
        self.settler.reports().await
    }

    /// Acknowledges a message and waits for the confirmation.
    ///
    /// # Errors
    ///
    /// If the server refused, or did not confirm while the lease lasted: the message will be
    /// delivered again.
    ///
    /// # Cancel safety
    ///
    /// The settlement goes on; only its outcome is lost.
    pub async fn ack(&self, lease: Lease) -> Result<(), Error> {
        self.settle_now(lease, Settlement::Ack).await
    }

    /// Has a message delivered again after `delay`, and waits for the confirmation. The broker
    /// takes about 2 s in addition.
    ///
    /// # Errors
    ///
    /// As for [`ack`](Consumer::ack).
    ///
    /// # Cancel safety
    ///
    /// The settlement goes on; only its outcome is lost.
    pub async fn retry_after(&self, lease: Lease, delay: Duration) -> Result<(), Error> {
        self.settle_now(lease, Settlement::RetryAfter(delay)).await
    }

    /// Has a message delivered again at once, and waits for the confirmation. This spends one of
    /// the message's attempts.
    ///
    /// # Errors
    ///
    /// As for [`ack`](Consumer::ack).
    ///
    /// # Cancel safety
    ///
    /// The settlement goes on; only its outcome is lost.
    pub async fn hand_back(&self, lease: Lease) -> Result<(), Error> {
        self.settle_now(lease, Settlement::HandBack).await
    }

    /// Moves a message to the dead-letter topic `%DLQ%<group>`, and waits for the confirmation.
    ///
    /// # Errors
    ///
    /// As for [`ack`](Consumer::ack).
    ///
    /// # Cancel safety
    ///
    /// The settlement goes on; only its outcome is lost.
    pub async fn dead_letter(&self, lease: Lease) -> Result<(), Error> {
        self.settle_now(lease, Settlement::DeadLetter).await
    }

    /// Keeps a message hidden for `by` from now on; returns the new deadline. Spends no attempt.
    ///
    /// # Errors
    ///
    /// With [`is_receipt_expired`](Error::is_receipt_expired) the lease is lost and the message
    /// delivered again. After other errors the old deadline stands, and the call may be repeated;
    /// failures that may pass are tried again inside while it does.
    ///
    /// If the answer to an extension is lost, the server may have replaced the handle by one that
    /// nobody knows, and will deliver the message again when that runs out, whatever becomes of this
    /// lease. Its settlement is then reported as not confirmed. (Orderly groups are not affected.)
    ///
    /// # Cancel safety
    ///
    /// The extension goes on, and the next settlement waits for its outcome: no handle is lost.
    pub async fn extend(&self, lease: &mut Lease, by: Duration) -> Result<Instant, Error> {
        self.settler.extend(lease, by).await
    }
}
