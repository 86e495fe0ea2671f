//! A session: the telemetry stream with one broker, over which client and server exchange settings
//! and the server sends commands; and the heartbeats beside it.
//!
//! The server refuses most requests of a client whose settings it does not know. So a session is
//! ready when the server has answered the settings, they are sent anew on every new stream, and
//! whoever is told UNRECOGNIZED_CLIENT_TYPE asks for a [`resync`](Session::resync).

mod heartbeat;

use std::{sync::Arc, time::Duration};

use rocketmq_proto::v2::{self as pb, telemetry_command::Command};
use tokio::{
    sync::{Notify, mpsc, watch},
    time::Instant,
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::{
    Error,
    backoff::Backoff,
    error::chain,
    instance::{Instance, OrphanCheck},
    rpc::{Rpc, Subject},
};

/// Commands of ours that wait for the stream to take them.
const COMMANDS_MAX: usize = 16;
/// How long the server may take to answer the settings, beside the request timeout.
const SETTINGS_GRACE: Duration = Duration::from_secs(3);
/// Settings are not sent more often than that, whoever asks.
const RESYNC_INTERVAL: Duration = Duration::from_secs(1);
/// Settings are sent that often anyway, as official clients do.
const RESYNC_PERIOD: Duration = Duration::from_secs(300);
const RENEWED_DELAY: Duration = Duration::from_millis(100);
const RECONNECT_FIRST: Duration = Duration::from_secs(1);
/// Between attempts while the server is away: consumers stand still for that long after its return.
const RECONNECT_MAX: Duration = Duration::from_secs(3);
/// Between attempts while the server refuses our settings, until somebody does something.
const REFUSED_MAX: Duration = Duration::from_secs(30);
/// A session that lasted that long was a good one: the next attempt follows soon.
const STABLE_AFTER: Duration = Duration::from_secs(10);
/// How long the server may take to end its half of the stream.
const FAREWELL_MAX: Duration = Duration::from_millis(200);

#[derive(Debug)]
pub(crate) struct Session {
    rpc: Rpc,
    health: watch::Sender<Health>,
    resync: Notify,
    ended: CancellationToken,
}

#[derive(Debug, Clone)]
enum Health {
    Connecting,
    /// The server has answered the settings of this version.
    Ready(u64),
    /// Another attempt follows.
    Broken(Error),
}

/// Why a stream is over.
enum Over {
    Ended,
    /// To be opened again at once: the connection was replaced.
    Renewed,
    Failed(Error),
}

impl Session {
    /// Opens the stream and keeps it open until the instance stops.
    pub(crate) fn open(instance: &Arc<Instance>, rpc: Rpc) -> Arc<Self> {
        let session = Arc::new(Self {
            rpc,
            health: watch::Sender::new(Health::Connecting),
            resync: Notify::new(),
            ended: instance.stop.child_token(),
        });
        instance.tasks.spawn(session.clone().run(instance.clone()));
        instance
            .tasks
            .spawn(heartbeat::run(session.clone(), instance.clone()));
        session
    }

    pub(crate) fn rpc(&self) -> Rpc {
        self.rpc.clone()
    }

    pub(crate) fn is_ready(&self) -> bool {
        matches!(*self.health.borrow(), Health::Ready(_))
    }

    /// Returns when the server has answered settings of that version or a later one, or why it did
    /// not at the last attempt.
    pub(crate) async fn ready(&self, settings: u64) -> Result<(), Error> {
        let mut health = self.health.subscribe();
        let settled = health
            .wait_for(|it| match it {
                Health::Connecting => false,
                Health::Ready(answered) => *answered >= settings,
                Health::Broken(_) => true,
            })
            .await;
        match settled.as_deref() {
            Ok(Health::Ready(_)) => Ok(()),
            Ok(Health::Broken(error)) => Err(error.clone()),
            Ok(Health::Connecting) | Err(_) => Err(Error::closed("session")),
        }
    }

    /// Returns when the session is ready, or with an error that does not pass by itself.
    pub(crate) async fn ready_or_refused(&self) -> Result<(), Error> {
        let mut health = self.health.subscribe();
        let found = health
            .wait_for(|it| match it {
                Health::Connecting => false,
                Health::Ready(_) => true,
                Health::Broken(error) => !error.is_retryable(),
            })
            .await;
        match found.as_deref() {
            Ok(Health::Broken(error)) => Err(error.clone()),
            Ok(Health::Ready(_) | Health::Connecting) => Ok(()),
            Err(_) => Err(Error::closed("session")),
        }
    }

    /// Sends the settings again, soon.
    pub(crate) fn resync(&self) {
        self.resync.notify_one();
    }

    pub(crate) fn end(&self) {
        self.ended.cancel();
    }

    async fn run(self: Arc<Self>, instance: Arc<Instance>) {
        let mut away = Backoff::new(RECONNECT_FIRST, RECONNECT_MAX);
        let mut refused = Backoff::new(RECONNECT_FIRST, REFUSED_MAX);
        // It was up, and no attempt to be up again has failed yet.
        let mut lasting = false;
        loop {
            let opened_at = Instant::now();
            let over = self.stream(&instance).await;
            let was_ready = self.is_ready();
            lasting |= was_ready;
            if was_ready && opened_at.elapsed() >= STABLE_AFTER {
                away.reset();
                refused.reset();
            }
            let error = match over {
                Over::Ended => return,
                Over::Renewed => {
                    self.health.send_replace(Health::Connecting);
                    // Bounds the pace at which a server can make us connect anew.
                    tokio::time::sleep(RENEWED_DELAY).await;
                    continue;
                }
                Over::Failed(error) => error,
            };
            if error.is_unauthorized()
                && let Some(signer) = self.rpc.identity.signer()
                && signer.refresh(opened_at).await
            {
                continue;
            }
            let backoff = if error.is_retryable() {
                &mut away
            } else {
                &mut refused
            };
            let delay = backoff.next_delay();
            let endpoint = self.endpoint();
            let retry_in_ms = delay.as_millis();
            if std::mem::take(&mut lasting) {
                warn!(endpoint, error = %chain(&error), retry_in_ms, "session lost");
            } else {
                debug!(endpoint, error = %chain(&error), retry_in_ms, "session not established");
            }
            self.health.send_replace(Health::Broken(error));
            if self
                .ended
                .run_until_cancelled(tokio::time::sleep(delay))
                .await
                .is_none()
            {
                return;
            }
        }
    }

    /// One stream from its first command to its end.
    async fn stream(&self, instance: &Instance) -> Over {
        if let Some(signer) = self.rpc.identity.signer()
            && let Err(error) = signer.prepare().await
        {
            return Over::Failed(error);
        }
        let mut generation = self.rpc.connection.generation();
        generation.mark_unchanged();
        let (commands, to_server) = mpsc::channel(COMMANDS_MAX);
        let (request, id) = self.rpc.request(ReceiverStream::new(to_server), None);
        let at = || {
            self.rpc.at(
                "telemetry",
                Subject {
                    group: instance.group(),
                    ..Subject::default()
                },
                id,
            )
        };
        let mut wanted = instance.settings_version.subscribe();
        let mut sent = *wanted.borrow_and_update();
        if commands.try_send(settings(instance)).is_err() {
            return Over::Failed(Error::protocol("the stream takes no settings", at()));
        }

        let patience = SETTINGS_GRACE + instance.request_timeout();
        let mut answer_by = Instant::now() + patience;
        // One at a time, so that an answer belongs to the settings that were sent last.
        let mut answered = false;
        let mut stub = self.rpc.stub();
        let mut stream = tokio::select! {
            () = self.ended.cancelled() => return Over::Ended,
            opened = tokio::time::timeout_at(answer_by, stub.telemetry(request)) => match opened {
                Ok(Ok(opened)) => opened.into_inner(),
                Ok(Err(status)) => return Over::Failed(self.rpc.failed(status, at())),
                Err(_) => return Over::Failed(Error::timeout(at(), patience)),
            },
        };

        // The stream is on the connection of the last attempt.
        let mut attempts = self.rpc.connection.attempts();
        attempts.mark_unchanged();
        let mut sent_at = Instant::now();
        loop {
            // A request to resync within the interval is kept by the Notify until it is over.
            let may_resync = answered && sent_at.elapsed() >= RESYNC_INTERVAL;
            tokio::select! {
                () = self.ended.cancelled() => {
                    drop(commands);
                    let rest = async { while let Ok(Some(_)) = stream.message().await {} };
                    let _ = tokio::time::timeout(FAREWELL_MAX, rest).await;
                    return Over::Ended;
                }
                _ = generation.changed() => return Over::Renewed,
                _ = attempts.changed() => return Over::Renewed,
                item = stream.message() => match item {
                    Ok(Some(command)) => {
                        if let Some(Command::Settings(settings)) = &command.command {
                            instance.settings.send_modify(|it| it.apply(settings));
                            if !answered {
                                answered = true;
                                self.now_ready(sent);
                            }
                        } else if !self.obey(command, &commands, instance) {
                            return Over::Renewed;
                        }
                    }
                    Ok(None) => {
                        return Over::Failed(Error::grpc(
                            tonic::Status::unavailable("the server ended the stream"), at()));
                    }
                    Err(status) => return Over::Failed(self.rpc.failed(status, at())),
                },
                () = tokio::time::sleep_until(answer_by), if !answered => {
                    return Over::Failed(Error::timeout(at(), patience));
                }
                () = async {
                    tokio::select! {
                        // What changed here is told at once.
                        _ = wanted.changed(), if answered => {}
                        () = self.resync.notified(), if may_resync => {}
                        else => std::future::pending().await,
                    }
                } => {
                    sent = *wanted.borrow_and_update();
                    if commands.try_send(settings(instance)).is_err() {
                        return Over::Failed(Error::grpc(
                            tonic::Status::unavailable("the server reads no commands"), at()));
                    }
                    sent_at = Instant::now();
                    answer_by = sent_at + patience;
                    answered = false;
                }
                () = tokio::time::sleep_until(sent_at + RESYNC_INTERVAL), if !may_resync && answered => {}
                () = tokio::time::sleep_until(sent_at + RESYNC_PERIOD) => self.resync.notify_one(),
            }
        }
    }

    fn now_ready(&self, settings: u64) {
        self.rpc.connection.set_isolated(false);
        let before = self.health.send_replace(Health::Ready(settings));
        let endpoint = self.endpoint();
        let client_id = self.rpc.identity.client_id();
        match before {
            Health::Connecting | Health::Ready(_) => debug!(endpoint, client_id, "session ready"),
            Health::Broken(_) => info!(endpoint, client_id, "session restored"),
        }
    }

    /// False if the stream is to be opened anew.
    fn obey(
        &self,
        command: pb::TelemetryCommand,
        commands: &mpsc::Sender<pb::TelemetryCommand>,
        instance: &Instance,
    ) -> bool {
        let unsupported = || {
            Some(pb::Status {
                code: pb::Code::Unsupported.into(),
                message: "not supported by this client".to_owned(),
            })
        };
        let answer = match command.command {
            Some(Command::ReconnectEndpointsCommand(_)) => {
                info!(
                    endpoint = self.endpoint(),
                    "the server asks to connect anew"
                );
                self.rpc.connection.renew(true);
                return false;
            }
            Some(Command::RecoverOrphanedTransactionCommand(it)) => {
                if let Some(message) = it.message {
                    instance.check_orphan(OrphanCheck {
                        endpoints: self.rpc.connection.endpoints().clone(),
                        message,
                        transaction_id: it.transaction_id,
                    });
                }
                return true;
            }
            Some(Command::PrintThreadStackTraceCommand(it)) => {
                Command::ThreadStackTrace(pb::ThreadStackTrace {
                    nonce: it.nonce,
                    thread_stack_trace: None,
                })
            }
            Some(Command::VerifyMessageCommand(it)) => {
                Command::VerifyMessageResult(pb::VerifyMessageResult { nonce: it.nonce })
            }
            // Unknown to us or none of a plain producer's and consumer's business.
            Some(_) | None => return true,
        };
        let answer = pb::TelemetryCommand {
            status: unsupported(),
            command: Some(answer),
        };
        if commands.try_send(answer).is_err() {
            debug!(
                endpoint = self.endpoint(),
                "the server reads no answers to its commands"
            );
        }
        true
    }

    fn endpoint(&self) -> String {
        self.rpc.connection.endpoints().to_string()
    }
}

fn settings(instance: &Instance) -> pb::TelemetryCommand {
    pb::TelemetryCommand {
        status: None,
        command: Some(Command::Settings(instance.proto_settings())),
    }
}
