//! The telemetry stream: settings in, the broker's terms out.

use std::sync::Arc;

use futures_util::{StreamExt as _, stream};
use rocketmq_proto::v2::{self, settings::PubSub, telemetry_command::Command};
use tokio::sync::mpsc;
use tonic::{Status, Streaming};

use crate::{
    core::Core,
    service::{
        ReplyStream,
        convert::{self, name, ok, producer_retry_policy, recover, retry_policy, wire_duration},
        request::Context,
    },
    state::{MAX_BATCH, MAX_LITE_TOPIC_BYTES, Push, Refusal, Role, Signer, Terms},
};

/// What the server says about lite topics, which can be sent to and not consumed.
const LITE_SUBSCRIPTION_QUOTA: i32 = 2000;

/// Waits for the first settings, as the real server does before it answers anything, then serves
/// the stream until either side ends it.
pub(crate) async fn run(
    core: Arc<Core>,
    cx: &Context,
    mut inbound: Streaming<v2::TelemetryCommand>,
) -> Result<ReplyStream<v2::TelemetryCommand>, Status> {
    let known = cx.client().and_then(|client| Ok((client, cx.signer()?)));
    let (client, signer) = match known {
        Ok((client, signer)) => (client.to_owned(), signer.clone()),
        Err(refusal) => {
            let status = Some(refusal.into());
            let only = v2::TelemetryCommand {
                status,
                command: None,
            };
            return Ok(Box::pin(stream::iter([Ok(only)])));
        }
    };
    let pushes = core.subscribe(&client);
    let mut session = Session {
        core,
        client,
        signer,
        pushes: Some(pushes),
        language: cx.language(),
        registered: false,
    };
    let first = loop {
        let Some(command) = inbound.message().await? else {
            return Ok(Box::pin(stream::empty()));
        };
        if let Some(reply) = session.answer(command)? {
            break reply;
        }
    };
    let rest = stream::unfold(
        (session, inbound),
        |(mut session, mut inbound)| async move {
            loop {
                let answer = tokio::select! {
                    command = inbound.message() => match command {
                        Ok(Some(command)) => session.answer(command).transpose(),
                        Ok(None) | Err(_) => return None,
                    },
                    push = session.push() => Some(Ok(push?)),
                };
                if let Some(reply) = answer {
                    return Some((reply, (session, inbound)));
                }
            }
        },
    );
    Ok(Box::pin(stream::iter([Ok(first)]).chain(rest)))
}

/// One client's stream. Dropped, it tells the state machine.
struct Session {
    core: Arc<Core>,
    client: String,
    signer: Signer,
    /// Commands that nobody asked for.
    pushes: Option<mpsc::Receiver<Push>>,
    /// Whether the client named one that can be read.
    language: Result<(), Refusal>,
    registered: bool,
}

impl Session {
    fn answer(
        &mut self,
        command: v2::TelemetryCommand,
    ) -> Result<Option<v2::TelemetryCommand>, Status> {
        // Results of commands that this broker never sends are of no interest.
        let Some(Command::Settings(settings)) = command.command else {
            return Ok(None);
        };
        let role = role(&settings)?;
        let language = self.language.clone();
        let first = !self.registered;
        let terms = self.core.with(|state, now| {
            let terms = state.register(now, &self.client, role, first)?;
            // From here on the end of the stream is the client's, whatever is said to it.
            self.registered = true;
            state.signed_by(&self.client, &self.signer);
            language.map(|()| terms)
        });
        let terms = terms.map_err(|refusal: Refusal| {
            let message = format!(
                "process client telemetryCommand failed. {}",
                refusal.message
            );
            match refusal.code {
                v2::Code::Unsupported | v2::Code::InternalServerError => Status::internal(message),
                _ => Status::invalid_argument(message),
            }
        })?;
        let command = Some(Command::Settings(merge(settings, &terms)));
        Ok(Some(v2::TelemetryCommand {
            status: Some(ok()),
            command,
        }))
    }
}

impl Session {
    /// The next command that nobody asked for; none when the stream is to end.
    async fn push(&mut self) -> Option<v2::TelemetryCommand> {
        let push = self.pushes.as_mut()?.recv().await?;
        let command = match push {
            Push::RecoverTransaction(half) => {
                Command::RecoverOrphanedTransactionCommand(recover(&half, &self.core.store_host()))
            }
        };
        Some(v2::TelemetryCommand {
            status: None,
            command: Some(command),
        })
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.pushes = None;
        self.core.unsubscribe(&self.client);
        if self.registered {
            self.core
                .with(|state, now| state.stream_ended(now, &self.client));
        }
    }
}

fn role(settings: &v2::Settings) -> Result<Role, Status> {
    match &settings.pub_sub {
        Some(PubSub::Publishing(publishing)) => Ok(Role::Producer {
            topics: publishing
                .topics
                .iter()
                .map(|topic| name(Some(topic)))
                .collect(),
        }),
        Some(PubSub::Subscription(subscription)) => Ok(Role::Consumer {
            kind: settings.client_type(),
            group: name(subscription.group.as_ref()),
            subscriptions: subscription
                .subscriptions
                .iter()
                .map(convert::subscription)
                .collect(),
        }),
        None => {
            let message = "there is no publishing or subscription data in settings";
            Err(Status::invalid_argument(message))
        }
    }
}

/// The client's settings with what the broker decides.
fn merge(mut settings: v2::Settings, terms: &Terms) -> v2::Settings {
    settings.metric = Some(v2::Metric {
        on: false,
        endpoints: None,
    });
    match terms {
        Terms::Producer { max_body_bytes } => {
            settings.backoff_policy = Some(producer_retry_policy());
            if let Some(PubSub::Publishing(publishing)) = &mut settings.pub_sub {
                publishing.max_body_size = i32::try_from(*max_body_bytes).unwrap_or(i32::MAX);
                publishing.validate_message_type = true;
            }
        }
        Terms::Consumer {
            group,
            max_long_poll,
        } => {
            settings.backoff_policy = Some(retry_policy(group));
            if let Some(PubSub::Subscription(subscription)) = &mut settings.pub_sub {
                subscription.fifo = Some(group.fifo);
                subscription.receive_batch_size = i32::try_from(MAX_BATCH).ok();
                subscription.long_polling_timeout = Some(wire_duration(*max_long_poll));
                subscription.lite_subscription_quota = Some(LITE_SUBSCRIPTION_QUOTA);
                subscription.max_lite_topic_size = i32::try_from(MAX_LITE_TOPIC_BYTES).ok();
            }
        }
    }
    settings
}
