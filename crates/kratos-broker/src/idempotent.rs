//! Idempotent consumption: a message that was handled is acknowledged without being handled again.
//!
//! Brokers deliver at least once. [`IdempotentLayer`] remembers, in a [`Store`], what is being
//! handled and what is done:
//!
//! * **new**: the message is marked as in flight, for [`hold`](IdempotentLayer::hold) (1 min), and
//!   handled; the mark is extended while the handler runs. When the handler succeeds the mark says
//!   *done*; when it fails the mark is cleared, and the retry is new.
//! * **in flight**: another delivery of it is being handled, or was when its process died. The
//!   message is tried again later, when the mark has expired unless it is extended. That is no
//!   failure: it is not counted, it opens no kill switch and makes no dead letter. Where the broker
//!   retries it spends one of its attempts; the last is kept in this process.
//! * **done**: it is acknowledged; the handler does not run. Marks are kept for
//!   [`keep`](IdempotentLayer::keep) (1 day).
//!
//! ```
//! use kratos_broker::{Json, Server, idempotent::{IdempotentLayer, MemoryStore}, memory};
//!
//! async fn bill(Json(order): Json<u64>) {}
//!
//! // "billing" is who remembers: usually the consumer group.
//! let once = IdempotentLayer::new(MemoryStore::new(), "billing");
//! let stats = once.stats();
//! let server = Server::new(memory::Broker::new())
//!     .layer(once)
//!     .subscribe("orders", "billing", bill);
//! assert_eq!(stats.duplicates(), 0);
//! # fn is_server(_: impl kratos::Server) {}
//! # is_server(server);
//! ```
//!
//! # What it promises
//!
//! Two handlers do not run at the same time for one message, as long as clocks run at the same
//! speed and no process stands still for longer than [`hold`](IdempotentLayer::hold): a handler
//! whose mark could not be extended is dropped when the mark expires. What it has asked others to
//! do cannot be called back: a request that is under way, or a statement that a database still
//! executes, goes on beside the next handler's. A message is handled a second time if the process
//! dies between the handler's last write and the mark, or if the store cannot be told that it is
//! done. Who needs the write and the mark to be *one* step writes both in one transaction of their
//! database: `kratos-sqlx` has that.
//!
//! Put the layer outside of layers that may refuse a message, and inside of those that only look at
//! it. A handler that spawns work and returns has succeeded.

mod guard;
mod key;
mod memory;
mod stats;

use std::{
    error, fmt,
    future::Future,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::future::BoxFuture;
use tower_layer::Layer;
use tower_service::Service;

use self::{
    guard::{Held, Ran},
    key::KeyOf,
};
use crate::{Delivery, Disposition, Failure};

pub use self::{memory::MemoryStore, stats::Stats};

/// How long the mark of a message that is being handled lasts unless it is extended.
const HOLD: Duration = Duration::from_secs(60);

/// Shortest hold: below it the store's own time counts too much.
const HOLD_MIN: Duration = Duration::from_millis(100);

/// How long it is remembered that a message is done.
const KEEP: Duration = Duration::from_secs(86_400);

/// First wait for a message that another delivery is handling; it doubles with each attempt.
const IN_FLIGHT_FIRST: Duration = Duration::from_secs(1);

/// Longest such wait, unless the mark lasts longer.
const IN_FLIGHT_MAX: Duration = Duration::from_secs(300);

/// Remembers which messages are being handled and which are done.
///
/// # Laws
///
/// * Of all [`begin`](Store::begin)s for one id, in all processes, at most one answers
///   [`Begun::New`] until its mark is cleared or expires; none does once it is done, as long as it
///   is kept.
/// * Time is one clock's: the store's own, not that of the processes that ask.
/// * A mark that has expired becomes that of whoever begins next; `extend`, `done` and `clear` with
///   the old one then change nothing and answer `false`.
/// * A call that fails has changed nothing, or what it was asked to: the caller cannot know.
/// * Every call ends in bounded time.
pub trait Store: Clone + Send + Sync + 'static {
    /// The right to end what was begun. Not `Clone`: it stands for one run of a handler.
    type Mark: Send + Sync + 'static;

    /// What goes wrong.
    type Error: error::Error + Send + Sync + 'static;

    /// Marks an id as in flight for `hold`, if it is new.
    ///
    /// `scope` is who remembers: ids of different scopes have nothing to do with each other.
    fn begin(
        &self,
        scope: &str,
        id: &str,
        hold: Duration,
    ) -> impl Future<Output = Result<Begun<Self::Mark>, Self::Error>> + Send;

    /// Lets a mark last for `hold` from now; `false` if it is no longer the holder's.
    fn extend(
        &self,
        mark: &Self::Mark,
        hold: Duration,
    ) -> impl Future<Output = Result<bool, Self::Error>> + Send;

    /// Says that it is done, and remembers that for at least `keep`; `false` if the mark was no
    /// longer the holder's.
    fn done(
        &self,
        mark: Self::Mark,
        keep: Duration,
    ) -> impl Future<Output = Result<bool, Self::Error>> + Send;

    /// Forgets the id: whoever begins next is new. `false` if the mark was no longer the holder's.
    fn clear(&self, mark: Self::Mark) -> impl Future<Output = Result<bool, Self::Error>> + Send;
}

/// What [`Store::begin`] found.
#[derive(Debug)]
pub enum Begun<M> {
    /// Nobody has it: it is yours, until the mark expires.
    New(M),
    /// Somebody is handling it.
    InFlight {
        /// When the mark expires, if it is not extended.
        left: Duration,
    },
    /// It was handled.
    Done,
}

/// Wraps subscriptions so that each message is handled once: see the [module](self).
pub struct IdempotentLayer<S> {
    store: S,
    settings: Arc<Settings>,
}

/// The service of an [`IdempotentLayer`].
pub struct Idempotent<Svc, S> {
    inner: Svc,
    store: S,
    settings: Arc<Settings>,
}

#[derive(Clone)]
struct Settings {
    scope: Arc<str>,
    key: KeyOf,
    hold: Duration,
    keep: Duration,
    stats: Stats,
}

// === impl IdempotentLayer ===

impl<S: Store> IdempotentLayer<S> {
    /// Remembers message ids in `store`, for `scope`: whoever handles a message once. That is the
    /// consumer group, or group and topic where one handler must not know of another's messages;
    /// all instances of a service say the same.
    pub fn new(store: S, scope: impl Into<Arc<str>>) -> Self {
        let settings = Settings {
            scope: scope.into(),
            key: KeyOf::default(),
            hold: HOLD,
            keep: KEEP,
            stats: Stats::default(),
        };
        Self {
            store,
            settings: Arc::new(settings),
        }
    }

    /// Sets what makes two messages the same: the broker's message id by default, which tells
    /// redeliveries of one message, not what a sender has sent twice. An order number in a header
    /// or key tells both. A message for which `key` answers `None` goes by its message id.
    ///
    /// ```
    /// # use kratos_broker::idempotent::{IdempotentLayer, MemoryStore};
    /// let layer = IdempotentLayer::new(MemoryStore::new(), "billing")
    ///     .key(|delivery| delivery.keys().first().cloned());
    /// ```
    #[must_use]
    pub fn key(self, key: impl Fn(&Delivery) -> Option<String> + Send + Sync + 'static) -> Self {
        self.change(|settings| settings.key = KeyOf::new(key))
    }

    /// Sets for how long a mark lasts whose process died: 1 minute by default, 100 ms at least.
    /// While a handler runs, its mark is extended, three times per hold.
    #[must_use]
    pub fn hold(self, hold: Duration) -> Self {
        self.change(|settings| settings.hold = hold.max(HOLD_MIN))
    }

    /// Sets for how long it is remembered that a message is done: 1 day by default. It should be
    /// longer than a duplicate can be late.
    #[must_use]
    pub fn keep(self, keep: Duration) -> Self {
        self.change(|settings| settings.keep = keep)
    }

    /// What the layer does, in numbers.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.settings.stats.clone()
    }

    fn change(mut self, change: impl FnOnce(&mut Settings)) -> Self {
        change(Arc::make_mut(&mut self.settings));
        self
    }
}

impl<S: Clone> Clone for IdempotentLayer<S> {
    fn clone(&self) -> Self {
        Self {
            store: self.store.clone(),
            settings: self.settings.clone(),
        }
    }
}

impl<S> fmt::Debug for IdempotentLayer<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IdempotentLayer")
            .field("scope", &self.settings.scope)
            .field("hold", &self.settings.hold)
            .field("keep", &self.settings.keep)
            .finish_non_exhaustive()
    }
}

impl<Svc, S: Store> Layer<Svc> for IdempotentLayer<S> {
    type Service = Idempotent<Svc, S>;

    fn layer(&self, inner: Svc) -> Idempotent<Svc, S> {
        Idempotent {
            inner,
            store: self.store.clone(),
            settings: self.settings.clone(),
        }
    }
}

// === impl Idempotent ===

impl<Svc, S> Service<Delivery> for Idempotent<Svc, S>
where
    Svc: Service<Delivery, Response = ()> + Clone + Send + 'static,
    Svc::Error: Into<Failure>,
    Svc::Future: Send,
    S: Store,
{
    type Response = ();
    type Error = Failure;
    type Future = BoxFuture<'static, Result<(), Failure>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, delivery: Delivery) -> Self::Future {
        // The one that is ready goes; its clone takes its place.
        let clone = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, clone);
        let (store, settings) = (self.store.clone(), self.settings.clone());
        Box::pin(async move {
            let Some(held) = begin(store, &settings, &delivery).await? else {
                return Ok(());
            };
            let run = async { inner.call(delivery).await.map_err(Into::into) };
            match held.run(run).await {
                Ran::Done(held) => {
                    settings.stats.add_handled();
                    held.done(settings.keep).await;
                    Ok(())
                }
                Ran::Failed(held, failure) => {
                    held.clear().await;
                    Err(failure)
                }
                Ran::Expired => {
                    settings.stats.add_expired();
                    let what = "the mark that this message is in flight could not be extended";
                    Err(Failure::typed(Disposition::Retry, "mark_expired", what))
                }
            }
        })
    }
}

/// Marks the message; `None` if it is done.
async fn begin<S: Store>(
    store: S,
    settings: &Settings,
    delivery: &Delivery,
) -> Result<Option<Held<S>>, Failure> {
    let id = settings.key.of(delivery);
    let began = tokio::time::Instant::now();
    let begun = store.begin(&settings.scope, &id, settings.hold).await;
    let begun = begun.map_err(|error| {
        let what = format!(
            "cannot mark message {id} as in flight: {}",
            kratos::error_chain(&error)
        );
        Failure::typed(Disposition::Retry, "idempotency_store", what)
    })?;
    match begun {
        Begun::New(mark) => Ok(Some(Held::new(store, mark, began, settings.hold))),
        Begun::Done => {
            settings.stats.add_duplicate();
            tracing::debug!(message.id = %delivery.id(), "done before: acknowledged unhandled");
            Ok(None)
        }
        Begun::InFlight { left } => {
            settings.stats.add_in_flight();
            let what = format!("message {id} is being handled by another delivery of it");
            Err(Failure::put_off(
                wait_for(left, delivery),
                "in_flight",
                what,
            ))
        }
    }
}

/// How long a message waits for a mark that lasts for `left` unless it is extended.
fn wait_for(left: Duration, delivery: &Delivery) -> Duration {
    if delivery.is_last_attempt() {
        // It waits in this process, and costs a look at the store.
        return left.clamp(IN_FLIGHT_FIRST, IN_FLIGHT_MAX);
    }
    let doublings = delivery.attempt().saturating_sub(1).min(16);
    let wait = (IN_FLIGHT_FIRST * (1 << doublings)).min(IN_FLIGHT_MAX);
    wait.max(left)
}

impl<Svc: Clone, S: Clone> Clone for Idempotent<Svc, S> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            store: self.store.clone(),
            settings: self.settings.clone(),
        }
    }
}

impl<Svc: fmt::Debug, S> fmt::Debug for Idempotent<Svc, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Idempotent")
            .field("inner", &self.inner)
            .field("scope", &self.settings.scope)
            .finish_non_exhaustive()
    }
}
