//! What a driver cannot do, it refuses.

use std::time::Duration;

use kratos::Server as _;

use super::{Harness, place::Place, start_context};
use crate::{
    Bytes, DeadLetter, Driver, Message, Publisher, RecallHandle, Receipt, Server,
    driver::{Filter, GroupSpec, TopicSpec},
};

async fn ignore(_: Bytes) {}

/// Everything that the capabilities deny is refused, and said so: by publish and by bind, and by the
/// driver itself, which others than these may use.
///
/// # Panics
///
/// Something is ignored silently.
pub async fn what_the_driver_cannot_do_it_refuses<H: Harness>(h: &H) {
    let place = Place::new(h, "refusal").await;
    let driver = h.driver().await;
    messages(&driver, &place).await;
    subscriptions(h, &driver, &place).await;
    groups(h, &driver, &place).await;
}

/// Whether it is denied, its name, and a message that asks for it.
type Denied = (bool, &'static str, fn(Message) -> Message);

async fn messages<D: Driver>(driver: &D, place: &Place) {
    let can = driver.capabilities();
    let publisher = Publisher::new(driver.clone());
    let message = || Message::new(&place.topic, "x");
    let denied: [Denied; 3] = [
        (!can.can_order(), "message group", |m| m.group("g")),
        (!can.can_delay(), "delay", |m| {
            m.delay(Duration::from_secs(1))
        }),
        (!can.can_prioritise(), "priority", |m| m.priority(1)),
    ];
    for (_, what, with) in denied.into_iter().filter(|(denied, ..)| *denied) {
        unsupported(what, publisher.publish(with(message())).await);
        unsupported(what, driver.publish(with(message())).await);
    }
    if !can.can_transact() {
        let local = |_: Receipt| async { unreachable!("not stored") };
        unsupported("transaction", publisher.transaction(message(), local).await);
        unsupported("transaction", driver.transaction(message(), local).await);
    }
    if !can.can_recall() {
        let handle = RecallHandle::new(&place.topic, "x");
        unsupported("recall", publisher.recall(&handle).await);
        unsupported("recall", driver.recall(&handle).await);
    }
    let bad = publisher
        .publish(message().header("name", "a\0b"))
        .await
        .expect_err("refused");
    assert!(bad.is_invalid(), "{bad}");
}

fn unsupported<T>(what: &str, answer: crate::Result<T>) {
    match answer {
        Ok(_) => panic!("ignored, not refused: {what}"),
        Err(error) => assert!(error.is_unsupported(), "{what}: {error}"),
    }
}

async fn subscriptions<H: Harness>(h: &H, driver: &H::Driver, place: &Place) {
    let can = driver.capabilities();
    let native = place.subscription(h).dead_letter(DeadLetter::Native);
    let denied = [
        (!can.can_tag_filter(), place.subscription(h).tags(["a"])),
        (!can.can_sql_filter(), place.subscription(h).sql("a = 1")),
        (!can.can_order(), place.subscription(h).fifo()),
        (!can.can_broadcast(), place.subscription(h).broadcast()),
        (!can.can_dead_letter(), native),
    ];
    for (_, subscription) in denied.into_iter().filter(|(denied, _)| *denied) {
        let server = Server::<_, ()>::new(driver.clone()).subscribe_with(subscription, ignore);
        let error = server.bind(start_context()).await.expect_err("refused");
        assert!(error.to_string().contains("cannot "), "{error}");
    }
}

async fn groups<H: Harness>(h: &H, driver: &H::Driver, place: &Place) {
    let can = driver.capabilities();
    let group = |filter: Filter| {
        let topics = vec![TopicSpec::new(&place.topic, filter)];
        GroupSpec::new(&place.group, topics, h.invisible())
    };
    let sql = Filter::Sql("a = 1".into());
    let denied = [
        (!can.can_tag_filter(), "tags", group(Filter::tags(["a"]))),
        (!can.can_sql_filter(), "sql", group(sql)),
        (!can.can_order(), "fifo", group(Filter::All).fifo(true)),
        (
            !can.can_broadcast(),
            "broadcast",
            group(Filter::All).broadcast(true),
        ),
    ];
    for (_, what, group) in denied.into_iter().filter(|(denied, ..)| *denied) {
        unsupported(what, driver.consumer(group, start_context()).await);
    }
}
