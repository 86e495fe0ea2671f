//! How a handler says that the last message of a round is done.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

/// Counts messages down, and wakes who waits for the last one. One decrement per message.
#[derive(Debug, Default)]
pub struct Latch {
    left: AtomicUsize,
    done: Notify,
}

impl Latch {
    /// One that lives as long as the process: handlers lend it, and no count of references moves.
    #[must_use]
    pub fn leaked() -> &'static Self {
        Box::leak(Box::default())
    }

    /// So many messages are to come.
    pub fn expect(&self, messages: usize) {
        self.left.store(messages, Ordering::Relaxed);
    }

    /// A message was handled.
    pub fn arrived(&self) {
        if self.left.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.done.notify_one();
        }
    }

    /// Waits for the last one.
    pub async fn done(&self) {
        while self.left.load(Ordering::Relaxed) > 0 {
            self.done.notified().await;
        }
    }
}
