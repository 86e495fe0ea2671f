//! Clients for tests of applications, by [`TestApp`](kratos_broker::testing::TestApp).
//!
//! ```
//! use kratos::App;
//! use kratos_broker::{Bytes, Message, testing::TestApp};
//! use kratos_rocketmq::{self as rocketmq, Server};
//!
//! async fn bill(_: Bytes) {}
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() {
//! let client = rocketmq::testing::embedded();
//! let server = Server::new(client.clone()).subscribe("orders", "billing", bill);
//! let app = App::new().resource(client.clone()).server(server);
//! let app = TestApp::start(&client, app).await;
//!
//! app.publish(Message::new("orders", "paid")).await;
//! app.settle().await;
//! assert_eq!(app.consumed("billing").len(), 1);
//! app.stop().await.unwrap();
//! # }
//! ```
//!
//! The same test runs against a real server with the client of [`real`]: let an environment variable
//! of your tests decide ([`real_or_embedded`]). Topics and groups must exist there, and be the
//! test's own: what others left in them is consumed, too.

use std::time::Duration;

use kratos_broker::testing::{Journal, Watched};
use rocketmq_devbroker::DevBroker;

use crate::{Client, Config};

/// How long a request may take: on a machine that is busy with other tests an answer that is late
/// must not be taken for a lost one, and its message sent twice.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// From when on a group of a real server gets what is published.
const WARM_UP: Duration = Duration::from_secs(3);

/// A client of a broker in this process, over memory: topics and groups are made when they are first
/// used, and a paused clock may be used.
#[must_use]
pub fn embedded() -> Client {
    of(DevBroker::in_memory())
}

/// A client of a dev broker, over memory: with topics, groups and faults of the test's own.
#[must_use]
pub fn of(broker: DevBroker) -> Client {
    Client::of_with(broker, |config| config.request_timeout(REQUEST_TIMEOUT)).watched()
}

/// A client of a real cluster.
///
/// # Errors
///
/// Those of [`Client::new`].
pub fn real(config: Config) -> kratos::Result<Client> {
    Ok(Client::new(config)?.watched())
}

/// A client of the proxy at `endpoints`; of a broker in this process, if there is none.
///
/// ```
/// # fn test() -> kratos::Result<()> {
/// let endpoints = std::env::var("TEST_ROCKETMQ").ok();
/// let client = kratos_rocketmq::testing::real_or_embedded(endpoints)?;
/// # drop(client);
/// # Ok(())
/// # }
/// # test().unwrap();
/// ```
///
/// # Errors
///
/// Those of [`Client::new`].
pub fn real_or_embedded(endpoints: Option<String>) -> kratos::Result<Client> {
    match endpoints {
        None => Ok(embedded()),
        endpoints => real(Config {
            endpoints,
            ..Config::default()
        }),
    }
}

impl Watched for Client {
    fn journal(&self) -> Journal {
        Self::journal(self).clone()
    }

    fn warm_up(&self) -> Duration {
        match self.broker() {
            Some(_) => Duration::ZERO,
            None => WARM_UP,
        }
    }
}
