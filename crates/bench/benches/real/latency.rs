//! From a send to the handler.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use kratos_broker::{Json, Message, State};
use kratos_rocketmq::Server;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, sleep_until, timeout},
};

use crate::{
    AnyError, Event, body,
    figures::Latency,
    floor::{self, Consume},
    now_nanos, ours,
};

pub(crate) const PER_SECOND: usize = 200;
pub(crate) const SECONDS: usize = 10;

/// At the beginning, not counted.
pub(crate) const WARM_SECONDS: usize = 2;

const COUNT: usize = PER_SECOND * (SECONDS + WARM_SECONDS);

/// How long a consumer is in its group before anything is sent: as long as the Go client has.
const PRIME: Duration = Duration::from_secs(4);

/// How long the last message may take.
const LAST_MAX: Duration = Duration::from_secs(10);

/// What was seen, in nanoseconds.
type Seen = Arc<Mutex<Vec<u64>>>;

pub(crate) async fn run(
    address: &str,
    who: &str,
    topic: &str,
    group: &str,
) -> Result<Latency, AnyError> {
    let seen = Seen::default();
    match who {
        "floor" => floor(address, topic, group, &seen).await?,
        _ => stack(address, topic, group, &seen).await?,
    }
    let seen = std::mem::take(&mut *seen.lock().map_err(|_| "a handler panicked")?);
    let counted = PER_SECOND * SECONDS;
    if seen.len() < counted * 99 / 100 {
        return Err(format!("{} of {counted} were seen", seen.len()).into());
    }
    Ok(Latency::of(seen))
}

async fn floor(address: &str, topic: &str, group: &str, seen: &Seen) -> Result<(), AnyError> {
    let how = Consume {
        loops: 1,
        ack_batch: 128,
        acks: 4,
    };
    let see = {
        let seen = seen.clone();
        move |body: &[u8]| {
            if let Ok(event) = serde_json::from_slice(body) {
                note(&seen, &event);
            }
        }
    };
    let consumer = {
        let (address, topic, group) = (address.to_owned(), topic.to_owned(), group.to_owned());
        tokio::spawn(async move { floor::consume(&address, &topic, &group, COUNT, how, see).await })
    };
    let sender = floor::Sender::open(address, topic).await?;
    pace(|seq| {
        let mut sender = sender.clone();
        async move { sender.send(seq, body(seq)?).await }
    })
    .await?;
    // It does not ask again for what was lost on the way: that would come after its lease.
    match timeout(LAST_MAX, consumer).await {
        Ok(ended) => ended?.map(drop),
        Err(_) => Ok(()),
    }
}

async fn stack(address: &str, topic: &str, group: &str, seen: &Seen) -> Result<(), AnyError> {
    async fn handle(State(seen): State<Seen>, Json(event): Json<Event>) {
        note(&seen, &event);
    }
    let client = ours::client(address)?;
    let publisher = client.publisher();
    let server = Server::new(client.clone())
        .subscribe(topic, group, handle)
        .with_state(seen.clone());
    let counters = server.counters();
    let (handle, running) = ours::start(client, server).await?;
    pace(|seq| {
        let (publisher, topic) = (publisher.clone(), topic.to_owned());
        async move {
            let message = Message::json(topic, &Event::new(seq))?;
            publisher.publish(message).await?;
            Ok(())
        }
    })
    .await?;
    let all = async {
        while counters.stats().confirmed < COUNT as u64 {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(LAST_MAX, all).await?;
    handle.stop();
    running.await??;
    Ok(())
}

/// Sends at the rate, whatever a send takes.
async fn pace<F>(send: impl Fn(usize) -> F) -> Result<(), AnyError>
where
    F: Future<Output = Result<(), AnyError>> + Send + 'static,
{
    sleep(PRIME).await;
    let (start, mut sends) = (Instant::now(), JoinSet::new());
    for seq in 0..COUNT {
        sleep_until(start + Duration::from_secs(1) * seq as u32 / PER_SECOND as u32).await;
        sends.spawn(send(seq));
    }
    while let Some(sent) = sends.join_next().await {
        sent??;
    }
    Ok(())
}

fn note(seen: &Seen, event: &Event) {
    if event.seq >= PER_SECOND * WARM_SECONDS
        && let Ok(mut seen) = seen.lock()
    {
        seen.push(now_nanos().saturating_sub(event.ts));
    }
}
