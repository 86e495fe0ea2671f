//! Asking name servers and brokers.

use std::collections::BTreeMap;

use futures_util::{StreamExt as _, stream};
use serde::{Deserialize, de::DeserializeOwned};

use crate::{
    cluster::{Broker, Master, Route, WireCluster, WireRoute},
    code,
    error::{Error, Kind, Place, Result},
    frame::Frame,
    json,
    pool::Target,
};

use super::Admin;

/// Servers that are asked at the same time.
const SERVERS_AT_ONCE: usize = 16;

/// Entries of one page of a list; brokers before 5.4 know no pages and send all of it.
const PAGE: usize = 1000;

/// Pages of one list.
const PAGES_MAX: usize = 1000;

#[derive(Deserialize)]
struct Runtime {
    #[serde(default)]
    table: BTreeMap<String, String>,
}

/// How a list is asked for in pages.
pub(super) struct Pages {
    pub(super) code: i32,
    /// Field of the body that has the entries by name.
    pub(super) table: &'static str,
    pub(super) start: &'static str,
    pub(super) max: &'static str,
    pub(super) total: &'static str,
}

pub(super) fn master(broker: &Broker) -> Option<Master> {
    Some(Master {
        name: broker.name.clone(),
        address: broker.master()?.to_owned(),
    })
}

impl Admin {
    /// Answer of the first name server that has one.
    ///
    /// Name servers do not talk to each other: one that has just started knows nothing until the
    /// brokers tell it, so what one does not know, another may.
    pub(super) async fn name_server(&self, operation: &str, request: Frame) -> Result<Frame> {
        let mut worst = Error::new(Kind::NoBroker, operation, "no name server");
        for address in &self.inner.name_servers {
            match self
                .one_name_server(operation, address, request.clone())
                .await
            {
                Ok(answer) => return Ok(answer),
                // "Not there" says more than "does not answer".
                Err(error) if worst.is_not_found() && !error.is_not_found() => {}
                Err(error) => worst = error,
            }
        }
        Err(worst)
    }

    async fn one_name_server(
        &self,
        operation: &str,
        address: &str,
        request: Frame,
    ) -> Result<Frame> {
        let target = Target {
            operation,
            broker: None,
            address,
        };
        self.inner.pool.call(target, request).await
    }

    /// The same at every name server; all must do it.
    pub(super) async fn every_name_server(&self, operation: &str, request: &Frame) -> Result<()> {
        // Of owned addresses: the future must be `Send` for callers that spawn it.
        let addresses = stream::iter(self.inner.name_servers.clone());
        let asked = addresses.map(|address: String| async move {
            self.one_name_server(operation, &address, request.clone())
                .await
        });
        let answers: Vec<_> = asked.buffered(SERVERS_AT_ONCE).collect().await;
        answers.into_iter().try_for_each(|it| it.map(drop))
    }

    /// Routes of a topic at the name servers that answer.
    pub(super) async fn routes(&self, operation: &str, topic: &str) -> Vec<Result<Route>> {
        let ask = |address: String| async move {
            let answer = self
                .one_name_server(operation, &address, route(topic))
                .await?;
            parse::<WireRoute>(operation, &answer).map(Route::from)
        };
        stream::iter(self.inner.name_servers.clone())
            .map(ask)
            .buffered(SERVERS_AT_ONCE)
            .collect()
            .await
    }

    pub(super) async fn route(&self, operation: &str, topic: &str) -> Result<Route> {
        let answer = self.name_server(operation, route(topic)).await?;
        parse::<WireRoute>(operation, &answer).map(Route::from)
    }

    pub(super) async fn brokers(&self, operation: &str) -> Result<Vec<Broker>> {
        let answer = self
            .name_server(operation, Frame::request(code::CLUSTER))
            .await?;
        let mut brokers: Vec<Broker> = parse::<WireCluster>(operation, &answer)?.into();
        let Some(cluster) = &self.inner.config.cluster else {
            return Ok(brokers);
        };
        let known = brokers.len();
        brokers.retain(|it| it.cluster == *cluster);
        if brokers.is_empty() && known > 0 {
            return Err(Error::not_found(
                operation,
                format!("there is no cluster {cluster}"),
            ));
        }
        Ok(brokers)
    }

    /// Masters of the chosen cluster, or of all; at least one.
    pub(super) async fn masters(&self, operation: &str) -> Result<Vec<Master>> {
        let brokers = self.brokers(operation).await?;
        let masters: Vec<_> = brokers.iter().filter_map(master).collect();
        if masters.is_empty() {
            return Err(Error::new(
                Kind::NoBroker,
                operation,
                "the name server knows no master broker",
            ));
        }
        Ok(masters)
    }

    async fn broker(&self, operation: &str, master: &Master, request: Frame) -> Result<Frame> {
        let target = Target {
            operation,
            broker: Some(&master.name),
            address: &master.address,
        };
        self.inner.pool.call(target, request).await
    }

    /// The same request at every broker. All are tried; one failure fails the whole.
    pub(super) async fn every_broker(
        &self,
        operation: &str,
        masters: &[Master],
        request: &Frame,
    ) -> Result<Vec<(String, Frame)>> {
        let ask = async |master: &Master| {
            let answer = self.broker(operation, master, request.clone()).await;
            (master.name.clone(), answer)
        };
        let answers: Vec<_> = stream::iter(masters)
            .map(ask)
            .buffered(SERVERS_AT_ONCE)
            .collect()
            .await;
        all(answers)
    }

    /// A list of every broker, page by page.
    pub(super) async fn every_list<T: DeserializeOwned>(
        &self,
        operation: &str,
        masters: &[Master],
        pages: &Pages,
    ) -> Result<Vec<(String, BTreeMap<String, T>)>> {
        let ask = async |master: &Master| {
            let list = self.list(operation, master, pages).await;
            (master.name.clone(), list)
        };
        let lists: Vec<_> = stream::iter(masters)
            .map(ask)
            .buffered(SERVERS_AT_ONCE)
            .collect()
            .await;
        all(lists)
    }

    async fn list<T: DeserializeOwned>(
        &self,
        operation: &str,
        master: &Master,
        pages: &Pages,
    ) -> Result<BTreeMap<String, T>> {
        let (mut list, mut start) = (BTreeMap::new(), 0);
        for _ in 0..PAGES_MAX {
            let request = Frame::request(pages.code)
                .field(pages.start, start.to_string())
                .field(pages.max, PAGE.to_string());
            let answer = self.broker(operation, master, request).await?;
            let total = answer.ext(pages.total).and_then(|it| it.parse().ok());
            let mut body: BTreeMap<String, serde_json::Value> = parse(operation, &answer)?;
            let page = body.remove(pages.table).unwrap_or_default();
            let page: BTreeMap<String, T> = match page {
                serde_json::Value::Null => BTreeMap::new(),
                page => serde_json::from_value(page).map_err(|it| not_understood(operation, it))?,
            };
            start += page.len();
            let last = page.is_empty() || total.is_none_or(|total: usize| start >= total);
            list.extend(page);
            if last {
                return Ok(list);
            }
        }
        Err(Error::protocol(
            operation,
            format!("a list of more than {PAGES_MAX} pages"),
        ))
    }

    /// Versions of brokers; one that does not answer has none.
    pub(super) async fn versions(
        &self,
        operation: &str,
        masters: &[Master],
    ) -> Vec<(String, Option<String>)> {
        let ask = async |master: &Master| {
            let version = async {
                let request = Frame::request(code::BROKER_RUNTIME);
                let answer = self.broker(operation, master, request).await?;
                parse::<Runtime>(operation, &answer)
            };
            let version = match version.await {
                Ok(mut runtime) => runtime.table.remove("brokerVersionDesc"),
                Err(error) => {
                    tracing::warn!(%error, broker = master.name, "no version");
                    None
                }
            };
            (master.name.clone(), version)
        };
        stream::iter(masters)
            .map(ask)
            .buffered(SERVERS_AT_ONCE)
            .collect()
            .await
    }
}

fn route(topic: &str) -> Frame {
    Frame::request(code::ROUTE)
        .field("topic", topic)
        .field("acceptStandardJsonOnly", "true")
}

/// The first failure, with who did their part nevertheless; or all.
fn all<T>(answers: Vec<(String, Result<T>)>) -> Result<Vec<(String, T)>> {
    let (mut done, mut failed) = (Vec::new(), None);
    for (name, answer) in answers {
        match answer {
            Ok(it) => done.push((name, it)),
            Err(error) => {
                let place = Place {
                    broker: Some(name),
                    address: error.address().map(str::to_owned),
                    request_code: error.request_code(),
                };
                failed.get_or_insert(error.at(place));
            }
        }
    }
    match failed {
        None => Ok(done),
        Some(error) => Err(error.with_done(done.into_iter().map(|(name, _)| name).collect())),
    }
}

pub(super) fn parse<T: DeserializeOwned>(operation: &str, answer: &Frame) -> Result<T> {
    json::from_slice(&answer.body).map_err(|it| not_understood(operation, it))
}

fn not_understood(operation: &str, error: serde_json::Error) -> Error {
    Error::protocol(operation, "an answer that is not understood").with_source(error)
}
