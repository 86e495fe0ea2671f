//! What lines of the log are about.
//!
//! Not a span's business: a line that is written for a message says of which one, also when the
//! message's trace is not sampled, or nobody traces.

use std::{
    cell::RefCell,
    fmt, mem,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll},
};

use pin_project_lite::pin_project;

/// Says in fields what some work is about; asked when a line is written.
pub trait About: Send + Sync {
    /// Tells each field by its name and value.
    fn tell(&self, field: &mut dyn FnMut(&'static str, &str));
}

/// Some work, and what it is a part of.
#[derive(Clone)]
pub struct Subject(Arc<dyn About>, Option<Arc<dyn About>>);

pin_project! {
    /// The future of [`about`].
    pub struct Told<F> {
        // That of others, while this one is polled.
        subject: Option<Subject>,
        #[pin]
        future: F,
    }
}

/// Puts things back, whatever happens in between.
struct Swapped<'s>(&'s mut Option<Subject>);

thread_local! {
    static CURRENT: RefCell<Option<Subject>> = const { RefCell::new(None) };
}

static WANTED: AtomicBool = AtomicBool::new(false);

/// Whether lines are written that say what they are about: else nobody asks. Cheap.
#[inline]
#[must_use]
pub fn is_told() -> bool {
    WANTED.load(Relaxed)
}

/// Runs `future` so that the lines of the log that are written in it say what `subject` tells;
/// without one it just runs.
///
/// ```
/// use std::sync::Arc;
///
/// use kratos::trace::{self, About, Subject};
///
/// struct Order(u32);
///
/// impl About for Order {
///     fn tell(&self, field: &mut dyn FnMut(&'static str, &str)) {
///         field("order", &self.0.to_string());
///     }
/// }
///
/// # async fn work() {}
/// # async fn run() {
/// let order = Subject::new(Arc::new(Order(7)));
/// trace::about(trace::is_told().then_some(order), work()).await;
/// # }
/// ```
pub fn about<F: Future>(subject: Option<Subject>, future: F) -> Told<F> {
    Told { subject, future }
}

/// There is a log that asks.
#[cfg(feature = "telemetry")]
pub(crate) fn want() {
    WANTED.store(true, Relaxed);
}

/// What a line that is written here is about.
#[cfg(feature = "telemetry")]
pub(crate) fn tell(field: &mut dyn FnMut(&'static str, &str)) {
    let subject = CURRENT.with_borrow(Clone::clone);
    if let Some(Subject(work, whole)) = subject {
        if let Some(whole) = whole {
            whole.tell(field);
        }
        work.tell(field);
    }
}

fn swap(subject: &mut Option<Subject>) {
    // Gone with the thread, where nothing is logged.
    let _ = CURRENT.try_with(|current| {
        if let Ok(mut current) = current.try_borrow_mut() {
            mem::swap(&mut *current, subject);
        }
    });
}

// === impl Subject ===

impl Subject {
    /// Some work by itself.
    #[must_use]
    pub fn new(work: Arc<dyn About>) -> Self {
        Self(work, None)
    }

    /// What it is a part of: told first.
    #[must_use]
    pub fn of(self, whole: Arc<dyn About>) -> Self {
        Self(self.0, Some(whole))
    }
}

impl fmt::Debug for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = f.debug_map();
        let mut tell = |about: &dyn About| {
            about.tell(&mut |name, value| {
                text.entry(&name, &value);
            });
        };
        if let Some(whole) = &self.1 {
            tell(&**whole);
        }
        tell(&*self.0);
        text.finish()
    }
}

// === impl Told ===

impl<F: Future> Future for Told<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        if this.subject.is_none() {
            return this.future.poll(cx);
        }
        swap(this.subject);
        let _back = Swapped(this.subject);
        this.future.poll(cx)
    }
}

impl<F> fmt::Debug for Told<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let subject = &self.subject;
        f.debug_struct("Told")
            .field("subject", subject)
            .finish_non_exhaustive()
    }
}

impl Drop for Swapped<'_> {
    fn drop(&mut self) {
        swap(self.0);
    }
}
