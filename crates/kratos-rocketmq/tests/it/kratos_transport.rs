//! The defects of delivery and lifecycle that tx7do/kratos-transport has, and that ours could have:
//! a test each, named after it. `kratos-transport.md` beside the README lists them all, with those
//! that other tests show and those that cannot be written down in ours.

mod consume;
mod lifecycle;
mod publish;

use std::sync::{Arc, Mutex};

use kratos::App;
use kratos_broker::{Backoff, Delivery, Policy, State};
use kratos_rocketmq::{Client, Server, Subscription};
use tokio::time::Duration;

use crate::site::{GROUP, Running, Site, TOPIC, eventually};

/// What handlers have got.
#[derive(Clone, Default)]
struct Got(Arc<Mutex<Vec<Delivery>>>);

impl Got {
    fn add(&self, delivery: Delivery) {
        self.0.lock().unwrap().push(delivery);
    }

    fn all(&self) -> Vec<Delivery> {
        self.0.lock().unwrap().clone()
    }

    fn count(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    fn bodies(&self) -> Vec<String> {
        let text = |d: &Delivery| String::from_utf8_lossy(d.body()).into_owned();
        self.all().iter().map(text).collect()
    }

    async fn reaches(&self, count: usize) {
        eventually("they are handled", || self.count() >= count).await;
    }
}

async fn get(State(got): State<Got>, delivery: Delivery) {
    got.add(delivery);
}

/// Tried again after 50 ms.
fn impatient() -> Subscription {
    let policy = Policy::new().backoff(Backoff::fixed(Duration::from_millis(50)));
    Subscription::new(TOPIC, GROUP).policy(policy)
}

/// An App that gets the site's messages through a client of its own, and is ready.
async fn running(site: &Site, got: &Got) -> Running {
    let client = Client::of(site.broker.clone());
    let server = Server::new(client.clone())
        .subscribe(TOPIC, GROUP, get)
        .with_state(got.clone());
    start(App::new().resource(client).server(server)).await
}

async fn start(app: App) -> Running {
    let running = Running::start(app);
    running.ready().await;
    running
}

async fn stop(running: Running) {
    running.signals.send();
    running.ended().await.0.unwrap();
}
