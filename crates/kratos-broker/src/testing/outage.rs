//! R8: what an outage of something that handlers need may cost.

use std::{
    collections::BTreeMap,
    future::{Ready, ready},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use tokio::time::{Instant, sleep};

use super::{
    Harness, eventually,
    order::{cannot_order, of_group},
    place::{Place, numbered, prime, prime_fifo},
    witness::{Seen, publish_all, serve, stop},
};
use crate::{AnyError, Delivery, KillSwitch};

/// After so many failures in a row the switch opens.
const IN_A_ROW: u32 = 20;

/// The first pause, and the longest.
const PAUSE: Duration = Duration::from_secs(1);
const MAX_PAUSE: Duration = Duration::from_secs(4);

/// R8: while everything fails, 1,000 messages cost few attempts and no dead letter, and no more
/// deliveries than opened the switch; after the recovery work goes on within the longest pause.
///
/// # Panics
///
/// It costs more, takes longer, or a message is lost.
pub async fn r8_an_outage_costs_few_attempts_and_no_dead_letter<H: Harness>(h: &H) {
    const MESSAGES: usize = 1_000;
    const LANES: usize = 16;
    let place = Place::new(h, "r8").await;
    prime(h, &place.topic, &place.group).await;
    let needed = Needed::default();
    let subscription = place
        .subscription(h)
        .concurrency(LANES)
        .kill_switch(switch());
    let (server, counters) = serve(h, subscription, needed.handler()).await;
    let messages: Vec<_> = numbered(&place.topic, MESSAGES).collect();
    let ids = publish_all(h, messages.chunks(100).map(<[_]>::to_vec)).await;
    eventually("it opens", h.bounds().deliver, || {
        counters.stats().switch_opened > 0
    })
    .await;
    let opened = Instant::now();
    // Long enough for leases to end that nobody extends.
    sleep((h.invisible() * 3 / 2).max(3 * PAUSE)).await;
    let probes = opened.elapsed().as_secs() / PAUSE.as_secs() + 1;
    let (tries, most) = (
        needed.tries(),
        u64::from(IN_A_ROW) + LANES as u64 - 1 + probes,
    );
    assert!(tries <= most, "{tries} attempts, at most {most} are due");
    assert_eq!(counters.stats().leases_lost, 0);

    needed.recover();
    let recovered = Instant::now();
    eventually(
        "work goes on",
        MAX_PAUSE + h.bounds().redelivery_late,
        || needed.done.count() > 0,
    )
    .await;
    let late = recovered.elapsed();
    assert!(late <= MAX_PAUSE + Duration::from_secs(1), "after {late:?}");
    eventually("all are done", h.bounds().deliver, || {
        needed.done.has_all(&ids)
    })
    .await;
    stop(server).await;
    let stats = counters.stats();
    // One more delivery for each failure that was needed to open the switch. Where publishing is
    // slow these may be failures of the same few messages.
    let again = stats.received - MESSAGES as u64;
    assert!(again < u64::from(IN_A_ROW), "{again} delivered again");
    assert_eq!((stats.switch_opened, stats.dead_lettered), (1, 0));
    assert!(h.dead_letters(&place.group).await.is_empty());
}

/// R8 where order is kept: an outage costs no message of a group its place, though each is given
/// three attempts only.
///
/// # Panics
///
/// A message is dead-lettered, lost, or out of order.
pub async fn r8_an_outage_keeps_the_order<H: Harness>(h: &H) {
    const GROUPS: usize = 2;
    const EACH: usize = 20;
    if cannot_order(h).await {
        return;
    }
    let place = Place::ordered(h, "r8o").await;
    prime_fifo(h, &place.topic, &place.group).await;
    let needed = Needed::default();
    let subscription = place.subscription(h).fifo().kill_switch(switch());
    let (server, counters) = serve(h, subscription, needed.handler()).await;
    let names: Vec<String> = (0..GROUPS).map(|n| format!("g{n}")).collect();
    let messages = names
        .iter()
        .map(|group| of_group(&place.topic, group, EACH));
    let ids = publish_all(h, messages).await;
    eventually("it opens", h.bounds().deliver, || {
        counters.stats().switch_opened > 0
    })
    .await;
    sleep((h.invisible() * 3 / 2).max(3 * PAUSE)).await;
    needed.recover();
    eventually("all are done", h.bounds().deliver, || {
        needed.done.has_all(&ids)
    })
    .await;
    stop(server).await;
    let mut done = BTreeMap::<_, Vec<_>>::new();
    for delivery in needed.done.all() {
        let group = delivery.message_group().unwrap_or_default().to_owned();
        done.entry(group).or_default().push(delivery.body().clone());
    }
    let wanted: Vec<_> = (0..EACH).map(|n| n.to_string()).collect();
    for group in names {
        assert_eq!(done[&group], wanted, "{group}");
    }
    let stats = counters.stats();
    assert_eq!((stats.dead_lettered, stats.leases_lost), (0, 0));
    assert!(h.dead_letters(&place.group).await.is_empty());
}

fn switch() -> KillSwitch {
    KillSwitch::new()
        .failures_in_a_row(IN_A_ROW)
        .pause(PAUSE)
        .max_pause(MAX_PAUSE)
}

/// What handlers need: away at first.
#[derive(Clone, Default)]
struct Needed {
    there: Arc<AtomicBool>,
    tries: Arc<AtomicU64>,
    done: Seen,
}

impl Needed {
    fn recover(&self) {
        self.there.store(true, SeqCst);
    }

    fn tries(&self) -> u64 {
        self.tries.load(SeqCst)
    }

    fn handler(
        &self,
    ) -> impl Fn(Delivery) -> Ready<Result<(), AnyError>> + Clone + Send + Sync + use<> {
        let needed = self.clone();
        move |delivery| {
            needed.tries.fetch_add(1, SeqCst);
            if !needed.there.load(SeqCst) {
                return ready(Err(AnyError::msg("it is away")));
            }
            needed.done.add(delivery);
            ready(Ok(()))
        }
    }
}
