//! L: leases.

use tokio::time::sleep;

use super::{Harness, Place, Started, delivery::Seen, eventually, prime, retry::publish};
use crate::{Delivery, Message, Server};

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
        server.stop(h.invisible()).await.expect("a clean stop");
    }
    assert_eq!(started.ids().get(&id), Some(&1), "delivered once");
}
