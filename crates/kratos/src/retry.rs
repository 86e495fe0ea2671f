//! Trying again until a deadline.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::warn;
use uuid::Uuid;

use crate::{Error, Result, error_chain};

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// What is left of the time when the last attempt has begun.
const LAST_ATTEMPT: Duration = Duration::from_millis(200);

/// At most one line of log per this time: an unreachable broker must not flood it.
const LOG_EVERY: Duration = Duration::from_secs(1);

/// The state of one thing that is tried again and again.
#[derive(Debug)]
pub(crate) struct Retry<'a> {
    what: &'a str,
    begun: Instant,
    deadline: Instant,
    attempts: u32,
    logged: Option<Instant>,
    last: Option<Error>,
}

impl<'a> Retry<'a> {
    pub(crate) fn new(what: &'a str, deadline: Instant) -> Self {
        let begun = Instant::now();
        Self {
            what,
            begun,
            deadline,
            attempts: 0,
            logged: None,
            last: None,
        }
    }

    /// Waits before the next attempt.
    ///
    /// # Errors
    ///
    /// `error` itself if it is permanent; that it was given up, if the deadline comes first or the
    /// start is `cancelled`.
    pub(crate) async fn pause(
        &mut self,
        error: Error,
        cancelled: &CancellationToken,
    ) -> Result<()> {
        if !error.is_transient() {
            return Err(error);
        }
        self.attempts += 1;
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left <= LAST_ATTEMPT {
            self.last = Some(error);
            return Err(self.give_up());
        }
        // The last attempt is made shortly before the deadline, however long the pause would be.
        let pause = jittered(backoff(self.attempts)).min(left - LAST_ATTEMPT / 2);
        if self.logged.is_none_or(|at| at.elapsed() >= LOG_EVERY) {
            self.logged = Some(Instant::now());
            warn!(attempt = self.attempts, error = %error_chain(&error), "{} is tried again", self.what);
        }
        self.last = Some(error);
        tokio::select! {
            () = sleep(pause) => Ok(()),
            () = cancelled.cancelled() => Err(self.give_up()),
        }
    }

    /// The error that says what was tried, for how long, and why it failed last.
    pub(crate) fn give_up(&mut self) -> Error {
        let seconds = self.begun.elapsed().as_secs_f64();
        let what = self.what;
        match self.last.take() {
            Some(last) => {
                let attempts = self.attempts;
                let words =
                    format!("gave up on {what} after {attempts} attempts in {seconds:.1} s");
                last.context(words).permanent()
            }
            None => Error::msg(format!("gave up on {what}: no answer in {seconds:.1} s")),
        }
    }
}

fn backoff(attempt: u32) -> Duration {
    let doublings = attempt.saturating_sub(1).min(8);
    (FIRST_PAUSE * 2u32.pow(doublings)).min(LONGEST_PAUSE)
}

/// Between half and all of `pause`, so that many processes do not knock at once.
fn jittered(pause: Duration) -> Duration {
    let [random, ..] = Uuid::new_v4().into_bytes();
    pause.mul_f64(0.5 + f64::from(random) / 510.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_their_bound() {
        assert_eq!(backoff(1), FIRST_PAUSE);
        assert_eq!(backoff(2), FIRST_PAUSE * 2);
        assert_eq!(backoff(u32::MAX), LONGEST_PAUSE);
    }

    #[test]
    fn jitter_stays_between_half_and_all() {
        for _ in 0..100 {
            let pause = jittered(FIRST_PAUSE);
            assert!(
                pause >= FIRST_PAUSE / 2 && pause <= FIRST_PAUSE,
                "{pause:?}"
            );
        }
    }
}
