//! What a driver cannot do, it refuses.

use std::time::Duration;

use kratos::Server as _;

use super::{Harness, place::Place, start_context};
use crate::{Bytes, Driver, Message, Publisher, RecallHandle, Server};

async fn ignore(_: Bytes) {}

/// Everything that the capabilities deny is refused, by publish or by bind, and said so.
///
/// # Panics
///
/// Something is ignored silently.
pub async fn what_the_driver_cannot_do_it_refuses<H: Harness>(h: &H) {
    let place = Place::new(h, "refusal").await;
    let driver = h.driver().await;
    let can = driver.capabilities();
    let publisher = Publisher::new(driver.clone());
    let message = || Message::new(&place.topic, "x");
    let denied = [
        (!can.can_order(), message().group("g")),
        (!can.can_delay(), message().delay(Duration::from_secs(1))),
        (!can.can_prioritise(), message().priority(1)),
    ];
    for (_, message) in denied.into_iter().filter(|(denied, _)| *denied) {
        let error = publisher.publish(message).await.expect_err("refused");
        assert!(error.is_unsupported(), "{error}");
    }
    if !can.can_transact() {
        let refused = publisher.transaction(message(), |_| async { unreachable!("not stored") });
        let error = refused.await.expect_err("refused");
        assert!(error.is_unsupported(), "{error}");
    }
    if !can.can_recall() {
        let handle = RecallHandle::new(&place.topic, "x");
        let error = publisher.recall(&handle).await.expect_err("refused");
        assert!(error.is_unsupported(), "{error}");
    }
    let bad = publisher
        .publish(message().header("name", "a\0b"))
        .await
        .expect_err("refused");
    assert!(bad.is_invalid(), "{bad}");

    let filters = [
        (!can.can_tag_filter(), place.subscription(h).tags(["a"])),
        (!can.can_sql_filter(), place.subscription(h).sql("a = 1")),
        (!can.can_order(), place.subscription(h).fifo()),
        (!can.can_broadcast(), place.subscription(h).broadcast()),
    ];
    for (_, subscription) in filters.into_iter().filter(|(denied, _)| *denied) {
        let server = Server::<_, ()>::new(driver.clone()).subscribe_with(subscription, ignore);
        let error = server.bind(start_context()).await.expect_err("refused");
        assert!(error.to_string().contains("cannot "), "{error}");
    }
}
