//! What a producer and a consumer have in common: an identity, sessions with every broker of their
//! topics, and the routes of those topics.

mod close;
mod refresh;
mod routes;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::{StreamExt as _, future::join_all, stream::FuturesUnordered};
use rocketmq_proto::v2 as pb;
use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::debug;

use self::routes::Routes;
use crate::{
    Endpoints, Error, Filter, ServerSettings,
    client::Shared,
    convert,
    identity::{Identity, VERSION},
    interceptor::Interceptors,
    route::Route,
    rpc::{Rpc, Subject},
    session::Session,
    spans::Spans,
};

/// Questions about orphaned transactions that wait for the producer; the server asks again for those
/// beyond.
pub(crate) const ORPHANS_MAX: usize = 1024;

/// One registered client of the servers.
#[derive(Debug)]
pub(crate) struct Instance {
    pub(crate) shared: Arc<Shared>,
    pub(crate) identity: Arc<Identity>,
    pub(crate) role: Role,
    pub(crate) spans: Spans,
    pub(crate) settings: watch::Sender<ServerSettings>,
    /// Of our own settings: counts up when they change, and sessions then send them anew.
    pub(crate) settings_version: watch::Sender<u64>,
    /// Ends the tasks below; cancelled after the good-bye.
    pub(crate) stop: CancellationToken,
    pub(crate) tasks: TaskTracker,
    sessions: Mutex<HashMap<Endpoints, Kept>>,
    routes: Routes,
}

#[derive(Debug)]
pub(crate) enum Role {
    Producer {
        topics: Mutex<BTreeSet<String>>,
        /// Where the server's questions go; room for [`ORPHANS_MAX`].
        orphans: mpsc::Sender<OrphanCheck>,
    },
    Consumer {
        /// A push consumer or a simple one.
        client_type: pb::ClientType,
        group: String,
        subscriptions: Mutex<BTreeMap<String, Filter>>,
    },
}

/// The server asks what became of a transaction that nobody ended.
#[derive(Debug)]
pub(crate) struct OrphanCheck {
    /// Who asks, and gets the answer.
    pub(crate) endpoints: Endpoints,
    pub(crate) message: pb::Message,
    pub(crate) transaction_id: String,
}

#[derive(Debug)]
struct Kept {
    session: Arc<Session>,
    absent_since: Option<Instant>,
}

impl Instance {
    pub(crate) fn start(
        shared: &Arc<Shared>,
        traced: bool,
        role: Role,
    ) -> Result<Arc<Self>, Error> {
        shared.check_open()?;
        let identity = shared.identity()?;
        let instance = Arc::new(Self {
            shared: shared.clone(),
            spans: Spans::new(traced, shared, identity.client_id(), &role),
            identity: Arc::new(identity),
            role,
            settings: watch::Sender::new(ServerSettings::default()),
            settings_version: watch::Sender::new(0),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
            sessions: Mutex::default(),
            routes: Routes::default(),
        });
        shared.register(&instance);
        instance.tasks.spawn(instance.clone().refresh_routes());
        Ok(instance)
    }

    pub(crate) fn interceptors(&self) -> &Interceptors {
        &self.shared.config.interceptors
    }

    pub(crate) fn request_timeout(&self) -> Duration {
        self.shared.config.request_timeout
    }

    pub(crate) fn resource(&self, name: &str) -> pb::Resource {
        pb::Resource {
            resource_namespace: self.shared.config.namespace.clone(),
            name: name.to_owned(),
        }
    }

    pub(crate) fn group(&self) -> Option<&str> {
        match &self.role {
            Role::Producer { .. } => None,
            Role::Consumer { group, .. } => Some(group),
        }
    }

    pub(crate) fn check_open(&self) -> Result<(), Error> {
        self.shared.check_open()?;
        if self.stop.is_cancelled() {
            return Err(Error::closed(match self.role {
                Role::Producer { .. } => "producer",
                Role::Consumer { .. } => "consumer",
            }));
        }
        Ok(())
    }

    pub(crate) fn rpc(&self, endpoints: &Endpoints) -> Result<Rpc, Error> {
        let connection = self.shared.connection(endpoints)?;
        Ok(Rpc {
            identity: self.identity.clone(),
            connection,
        })
    }

    /// Cached, or fetched with its sessions ready.
    pub(crate) async fn route(self: &Arc<Self>, topic: &str) -> Result<Arc<Route>, Error> {
        let asked_at = Instant::now();
        let routed = self.routes.topic(topic);
        if let Some(cached) = routed.cached(asked_at) {
            return cached;
        }
        let _one_at_a_time = routed.fetching.lock().await;
        if let Some(cached) = routed.cached(asked_at) {
            return cached;
        }
        self.check_open()?;
        match self.look_up(topic).await {
            Ok(route) => {
                routed.found(route.clone());
                Ok(route)
            }
            Err(error) => {
                routed.failed(error.clone());
                Err(error)
            }
        }
    }

    /// Has the next sender look the topic up again: it was deleted, or made anew.
    pub(crate) fn doubt_route(&self, topic: &str) {
        self.routes.topic(topic).doubt();
    }

    async fn look_up(self: &Arc<Self>, topic: &str) -> Result<Arc<Route>, Error> {
        let route = Arc::new(self.query_route(topic).await?);
        // The server asks about orphaned transactions only who has named the topic before.
        let settings = self.register_topic(topic);
        let sessions = self.sessions_of(&route)?;
        let mut up = sessions.is_empty();
        let mut down = None;
        for ready in join_all(sessions.iter().map(|it| it.ready(settings))).await {
            match ready {
                Ok(()) => up = true,
                Err(error) if !error.is_retryable() => return Err(error),
                Err(error) => down = Some(error),
            }
        }
        match down {
            Some(error) if !up => Err(error),
            // The session of a broker that is away goes on trying; the others can work.
            Some(_) | None => Ok(route),
        }
    }

    /// Returns when the session with one of the servers is up, at the latest after the request
    /// timeout, and which is to be asked now: from `first` on the first that is up.
    pub(crate) async fn until_ready(&self, servers: &[&Endpoints], first: usize) -> usize {
        let sessions = || servers.iter().map(|it| self.session(it));
        let mut waits: FuturesUnordered<_> = sessions()
            .flatten()
            .map(|it| async move { it.ready_or_refused().await })
            .collect();
        let one_is_up = async { while let Some(Err(_)) = waits.next().await {} };
        // Whether it is back is for the next request to find out.
        let _ = tokio::time::timeout(self.request_timeout(), one_is_up).await;
        let up: Vec<_> = sessions()
            .map(|it| it.is_some_and(|it| it.is_ready()))
            .collect();
        let mut in_turn = (first..up.len()).chain(0..first);
        in_turn.find(|at| up[*at]).unwrap_or(first)
    }

    pub(crate) fn session(&self, endpoints: &Endpoints) -> Option<Arc<Session>> {
        self.sessions().get(endpoints).map(|it| it.session.clone())
    }

    /// Sends the settings again where the server has forgotten them, and looks for other credentials
    /// if it refuses ours.
    pub(crate) fn react(&self, endpoints: &Endpoints, error: &Error) {
        if error.is_unauthorized() && self.identity.signer().is_some() {
            let (identity, refused_at) = (self.identity.clone(), Instant::now());
            self.tasks.spawn(async move {
                if let Some(signer) = identity.signer() {
                    signer.refresh(refused_at).await;
                }
            });
        }
        if error.is_code(pb::Code::UnrecognizedClientType)
            && let Some(session) = self.session(endpoints)
        {
            session.resync();
        }
    }

    /// Hands a question of the server to the producer.
    pub(crate) fn check_orphan(&self, check: OrphanCheck) {
        let Role::Producer { orphans, .. } = &self.role else {
            return;
        };
        if let Err(refused) = orphans.try_send(check) {
            debug!(reason = %refused, "an orphaned transaction is left to the server's next check");
        }
    }

    /// What a consumer wants of a topic from now on; the servers are told at once.
    pub(crate) fn subscribe(&self, topic: &str, filter: Option<Filter>) {
        let Role::Consumer { subscriptions, .. } = &self.role else {
            return;
        };
        let mut subscriptions = subscriptions.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = match filter {
            Some(filter) => subscriptions.insert(topic.to_owned(), filter.clone()) != Some(filter),
            None => subscriptions.remove(topic).is_some(),
        };
        drop(subscriptions);
        if changed {
            self.settings_version.send_modify(|it| *it += 1);
        }
    }

    /// True while every session is up.
    pub(crate) fn is_connected(&self) -> bool {
        self.sessions()
            .values()
            .all(|it| it.absent_since.is_some() || it.session.is_ready())
    }

    pub(crate) fn client_type(&self) -> pb::ClientType {
        match self.role {
            Role::Producer { .. } => pb::ClientType::Producer,
            Role::Consumer { client_type, .. } => client_type,
        }
    }

    pub(crate) fn proto_settings(&self) -> pb::Settings {
        use pb::settings::PubSub;
        let pub_sub = match &self.role {
            Role::Producer { topics, .. } => {
                let topics = topics.lock().unwrap_or_else(PoisonError::into_inner);
                PubSub::Publishing(pb::Publishing {
                    topics: topics.iter().map(|it| self.resource(it)).collect(),
                    ..Default::default()
                })
            }
            Role::Consumer {
                group,
                subscriptions,
                ..
            } => PubSub::Subscription(pb::Subscription {
                group: Some(self.resource(group)),
                subscriptions: subscriptions
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .iter()
                    .map(|(topic, filter)| pb::SubscriptionEntry {
                        topic: Some(self.resource(topic)),
                        expression: Some(filter.to_proto()),
                    })
                    .collect(),
                ..Default::default()
            }),
        };
        pb::Settings {
            client_type: Some(self.client_type().into()),
            access_point: Some(self.shared.access_point.to_proto()),
            request_timeout: Some(convert::proto_duration(self.request_timeout())),
            pub_sub: Some(pub_sub),
            user_agent: Some(pb::Ua {
                language: pb::Language::Rust.into(),
                version: VERSION.to_owned(),
                platform: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
                hostname: self.shared.config.name.clone(),
            }),
            ..Default::default()
        }
    }

    async fn query_route(&self, topic: &str) -> Result<Route, Error> {
        let rpc = self.rpc(&self.shared.access_point)?;
        let request = pb::QueryRouteRequest {
            topic: Some(self.resource(topic)),
            endpoints: Some(self.shared.access_point.to_proto()),
        };
        let subject = Subject {
            topic: Some(topic),
            ..Subject::default()
        };
        let timeout = self.request_timeout() + self.shared.config.connect_timeout;
        let answer = rpc
            .call(
                "query of a route",
                subject,
                request,
                timeout,
                |mut stub, rq| async move { stub.query_route(rq).await },
            )
            .await?;
        let route = Route::from_proto(answer.message_queues);
        Ok(match &self.shared.config.rewrite {
            Some(rewrite) => route.rewritten(&*rewrite.0),
            None => route,
        })
    }

    /// Returns the version of the settings that name the topic.
    fn register_topic(&self, topic: &str) -> u64 {
        if let Role::Producer { topics, .. } = &self.role {
            let mut topics = topics.lock().unwrap_or_else(PoisonError::into_inner);
            if !topics.contains(topic) {
                topics.insert(topic.to_owned());
                self.settings_version.send_modify(|it| *it += 1);
            }
        }
        *self.settings_version.borrow()
    }

    /// The sessions of a route; new ones are opened.
    fn sessions_of(self: &Arc<Self>, route: &Route) -> Result<Vec<Arc<Session>>, Error> {
        let mut of_route = Vec::new();
        for endpoints in route.endpoints() {
            let rpc = self.rpc(endpoints)?;
            let mut sessions = self.sessions();
            let kept = sessions.entry(endpoints.clone()).or_insert_with(|| Kept {
                session: Session::open(self, rpc),
                absent_since: None,
            });
            kept.absent_since = None;
            of_route.push(kept.session.clone());
        }
        Ok(of_route)
    }

    fn sessions(&self) -> MutexGuard<'_, HashMap<Endpoints, Kept>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
