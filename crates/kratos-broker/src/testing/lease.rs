//! L: leases; D12 and D21, which are about them.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::time::{Instant, sleep, sleep_until};

use super::{
    Harness, Started, eventually,
    place::{Place, prime},
    settling::{answers, close, consumer, receive},
    witness::{OnDrop, Seen, publish, serve, stop},
};
use crate::{
    Cancelled, Consumer, Delivery, Message, Server, Settlement, Subscription, driver::Ticket,
};

/// L1: a handler that takes five times the invisible duration gets its message once: also from a
/// second server of the group, that would be glad to have it.
///
/// # Panics
///
/// It is delivered again.
pub async fn l1_a_handler_of_five_invisible_times_is_delivered_once<H: Harness>(h: &H) {
    let place = Place::new(h, "l1").await;
    prime(h, &place.topic, &place.group).await;
    let (started, done) = (Seen::default(), Seen::default());
    let long = 5 * h.invisible();
    let mut servers = Vec::new();
    for _ in 0..2 {
        let (started, done) = (started.clone(), done.clone());
        let handler = move |delivery: Delivery| {
            let (started, done) = (started.clone(), done.clone());
            async move {
                started.add(delivery.clone());
                sleep(long).await;
                done.add(delivery);
            }
        };
        let server = Server::new(h.driver().await).subscribe_with(place.subscription(h), handler);
        servers.push(Started::start(server).await);
    }
    let id = publish(h, Message::new(&place.topic, "long")).await;
    let bounds = h.bounds();
    eventually("it is done", bounds.deliver + long, || {
        !done.all().is_empty()
    })
    .await;
    // Long enough for a lost lease, or a lost acknowledgement, to show.
    sleep(h.invisible() + bounds.redelivery_late).await;
    for server in servers {
        stop(server).await;
    }
    assert_eq!(started.ids().get(&id), Some(&1), "delivered once");
}

/// Runs a message whose first handler never ends by itself; answers when each attempt began, and
/// whether the token had fired when the first one was dropped.
async fn hang_once<H: Harness>(
    h: &H,
    place: &Place,
    subscription: Subscription,
    within: Duration,
) -> (Vec<Instant>, Vec<bool>, crate::Stats) {
    prime(h, &place.topic, &place.group).await;
    let began = Arc::new(Mutex::new(Vec::new()));
    let fired = Arc::new(Mutex::new(Vec::new()));
    let handler = {
        let (began, fired) = (began.clone(), fired.clone());
        move |Cancelled(token): Cancelled| {
            let mut began = began.lock().unwrap();
            began.push(Instant::now());
            let first = began.len() == 1;
            let fired = fired.clone();
            async move {
                if first {
                    let _on_drop = OnDrop { fired, token };
                    std::future::pending::<()>().await;
                }
            }
        }
    };
    let (server, counters) = serve(h, subscription, handler).await;
    publish(h, Message::new(&place.topic, "x")).await;
    let within = within + h.bounds().deliver;
    eventually("it is done by another attempt", within, || {
        counters.stats().confirmed >= 1 && counters.stats().handled >= 1
    })
    .await;
    stop(server).await;
    let (began, fired) = (began.lock().unwrap().clone(), fired.lock().unwrap().clone());
    (began, fired, counters.stats())
}

/// D12: when its deadline has passed, or its lease is lost, a handler's token fires and then its
/// future is dropped, at its next await.
///
/// # Panics
///
/// It goes on, or is dropped without a word.
pub async fn d12_a_passed_deadline_or_a_lost_lease_cancels_the_handler<H: Harness>(h: &H) {
    let late = h.invisible() + h.bounds().redelivery_late;
    let place = Place::new(h, "d12").await;
    let limited = place
        .subscription(h)
        .handler_timeout(Duration::from_secs(1));
    let deadline = hang_once(h, &place, limited, late);
    let other = Place::new(h, "d12-lease").await;
    let held = other.subscription(h).max_hold(h.invisible());
    let lease = hang_once(h, &other, held, 3 * late);
    let (deadline, lease) = tokio::join!(deadline, lease);
    assert_eq!((&*deadline.1, deadline.2.failed), (&[true][..], 1));
    assert_eq!((&*lease.1, lease.2.failed), (&[true][..], 0));
}

/// L2: a message whose lease was lost is settled by nobody: its handler is cancelled, the old handle
/// is not used, and the attempt that follows is the one that is acknowledged.
///
/// # Panics
///
/// Something was settled with the old handle, or it counts as a failure.
pub async fn l2_a_lost_lease_cancels_the_handler_and_settles_nothing<H: Harness>(h: &H) {
    let place = Place::new(h, "l2").await;
    let held = place.subscription(h).max_hold(h.invisible());
    let within = 3 * (h.invisible() + h.bounds().redelivery_late);
    let (began, fired, stats) = hang_once(h, &place, held, within).await;
    assert_eq!((began.len(), &*fired), (2, &[true][..]));
    assert_eq!((stats.leases_lost, stats.handled, stats.failed), (1, 1, 0));
    assert_eq!((stats.confirmed, stats.refused), (1, 0), "one settlement");
}

/// L3: renewal stops at the maximum: a handler that never ends keeps its message that long, and no
/// longer than a lease more.
///
/// # Panics
///
/// The message comes again before, or much later.
pub async fn l3_renewal_stops_at_the_maximum<H: Harness>(h: &H) {
    let hold = 2 * h.invisible();
    let late = h.invisible() + h.bounds().redelivery_late;
    let place = Place::new(h, "l3").await;
    let held = place.subscription(h).max_hold(hold);
    let (began, _, stats) = hang_once(h, &place, held, hold + 2 * late).await;
    let [first, second] = began[..] else {
        panic!("not two attempts: {began:?}")
    };
    let waited = second - first;
    assert!(waited >= hold, "given up early, after {waited:?}");
    // On this machine's clock the lease ends at most one invisible time after the maximum.
    let limit = hold + late + Duration::from_secs(1);
    assert!(waited <= limit, "kept for {waited:?}");
    assert_eq!(stats.leases_lost, 1);
}

/// D21: a settlement with a handle that is out of date is answered as lost, in bounded time; the
/// message comes again, and can be settled then.
///
/// # Panics
///
/// It is confirmed, never answered, or the message does not come again.
pub async fn d21_an_out_of_date_handle_is_given_up<H: Harness>(h: &H) {
    let place = Place::new(h, "d21").await;
    prime(h, &place.topic, &place.group).await;
    let id = publish(h, Message::new(&place.topic, "x")).await;
    let consumer = consumer(h, &place, false, h.invisible()).await;
    let mut leases = receive(h, &consumer, &place.topic, 1).await;
    let old = leases.remove(0);
    let out_of_date = old.expires_at.max(Instant::now() + h.invisible());
    sleep_until(out_of_date + Duration::from_millis(1500)).await;
    consumer.settle(Ticket::new(1), old.lease, Settlement::Ack);
    let answered = answers::<H>(&consumer, 1);
    let answered = tokio::time::timeout(h.bounds().deliver, answered).await;
    assert_eq!(answered.expect("an answer").get(&1), Some(&false), "lost");

    let mut again = receive(h, &consumer, &place.topic, 1).await;
    let again = again.remove(0);
    assert_eq!(*again.delivery.id(), id);
    assert!(again.delivery.attempt() > 1);
    consumer.settle(Ticket::new(2), again.lease, Settlement::Ack);
    assert_eq!(answers::<H>(&consumer, 1).await.get(&2), Some(&true));
    close::<H>(consumer).await;
}
