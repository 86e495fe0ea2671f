//! The conformance kit: what every driver must do, as functions named after the laws.
//!
//! For writers of drivers. A driver's tests implement [`Harness`], which tells the kit how to reach
//! the broker and how to make topics and groups on it, and write one line:
//!
//! ```text
//! kratos_broker::conformance!(MyHarness::start());
//! ```
//!
//! It makes a `#[test]` of every law in [`LAWS`]. A law is an `async fn(&impl Harness)` that panics
//! if it is broken, and can be called by itself:
//!
//! ```
//! use std::{sync::atomic::{AtomicU32, Ordering}, time::Duration};
//!
//! use kratos_broker::{
//!     Delivery, Group, Topic, memory,
//!     testing::{self, Bounds, Harness},
//! };
//!
//! #[derive(Default)]
//! struct MyHarness {
//!     broker: memory::Broker, // yours: the address of a server that the test started
//!     names: AtomicU32,
//! }
//!
//! impl MyHarness {
//!     fn name(&self, hint: &str) -> String {
//!         format!("{hint}-{}", self.names.fetch_add(1, Ordering::Relaxed))
//!     }
//! }
//!
//! impl Harness for MyHarness {
//!     type Driver = memory::Broker;
//!
//!     async fn driver(&self) -> memory::Broker {
//!         self.broker.clone() // yours: connect
//!     }
//!
//!     async fn topic(&self, hint: &str) -> Topic {
//!         self.name(hint).into() // yours: create it
//!     }
//!
//!     async fn group(&self, hint: &str) -> Group {
//!         self.name(hint).into() // yours: create it
//!     }
//!
//!     async fn dead_letters(&self, group: &Group) -> Vec<Delivery> {
//!         self.broker.dead_letters(group)
//!     }
//!
//!     fn invisible(&self) -> Duration {
//!         Duration::from_secs(1)
//!     }
//!
//!     fn bounds(&self) -> Bounds {
//!         Bounds { prime: Duration::from_millis(10), ..Bounds::default() }
//!     }
//! }
//!
//! testing::block_on(async {
//!     let harness = MyHarness::default();
//!     testing::delivery::d11_topics_of_a_group_do_not_mix(&harness).await;
//!     testing::refusal::what_the_driver_cannot_do_it_refuses(&harness).await;
//! });
//! ```
//!
//! # What a harness must give
//!
//! * **[Drivers](Harness::driver)** with connections of their own: a law uses several at once, to
//!   stand for several processes.
//! * **[Topics](Harness::topic) and [groups](Harness::group) that nobody used before**, also not in
//!   an earlier run on the same server: laws run at once, and none may see another's messages. A
//!   message of such a group gets at least 4 attempts. A topic has one name in all drivers.
//! * **[Dead letters](Harness::dead_letters)** of a group, read by whatever means.
//! * **[The shortest lease](Harness::invisible)** that the broker grants and the machine can keep:
//!   the laws about leases take some multiples of it.
//! * **[Bounds]**, if the defaults do not fit: how long things may take on this broker, and how much
//!   of everything there is. Bounds are part of a law and there to be generous: a law that is broken
//!   fails early by what it counts, not by the clock.
//!
//! A broker's group may begin at the end of a topic. Where a law publishes before its consumer runs,
//! the kit lets the group receive once before ([`prime`]), for [`Bounds::prime`].
//!
//! # What a driver cannot do
//!
//! it declares by its [`Capabilities`](crate::driver::Capabilities), and
//! [`refusal`] checks that it is really refused, not ignored: by what an application uses, and by the
//! driver when it is asked itself. The laws about such a feature then pass without having tried
//! anything: [`order`] without ordering, [`features`] one by one. What the harness cannot do, rather
//! than the driver, is left out in the same way: [special topics](Harness::special_topic),
//! [transactions](Harness::transactions), [a broker that goes away](Harness::stop_broker). A law that
//! is not tried says so in its output (`-- --show-output`).
//!
//! # How laws run
//!
//! Each on a runtime of its own ([`block_on`], two threads, the real clock), all at once: they wait
//! more than they work, so give the test binary as many threads as there are laws
//! (`-- --test-threads 64`). On a server they take as long as the longest: about a minute where the
//! shortest lease is 10 s. A process has one tracing subscriber: [`trace`] installs it, and sees the
//! spans of all laws.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a law fails by panicking"
)]

mod app;
pub mod batch;
pub mod content;
pub mod delivery;
pub mod failure;
pub mod features;
mod harness;
mod journal;
mod laws;
pub mod lease;
pub mod load;
pub mod membership;
pub mod order;
pub mod outage;
mod place;
pub mod refusal;
pub mod retry;
mod run;
pub mod settling;
pub mod shutdown;
pub mod trace;
mod witness;

pub use self::{
    app::{TestApp, Watched},
    harness::{Bounds, Harness, TopicKind},
    journal::Journal,
    laws::LAWS,
    place::prime,
    run::{Started, block_on, eventually, start_context},
};
