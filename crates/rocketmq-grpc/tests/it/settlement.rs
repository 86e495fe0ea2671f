use std::time::Duration;

use rocketmq_grpc::{Consumer, Lease, Settlement};
use rocketmq_proto::v2::{self as pb, Code};
use tokio::time::Instant;
use tonic::Status;

use crate::fake::{Fake, TOPIC, eventually, messages, result, status};

async fn leases(fake: &Fake, consumer: &Consumer, count: usize) -> Vec<Lease> {
    for from in (0..count).step_by(32) {
        fake.push(messages(from..count.min(from + 32)));
    }
    let mut leases = Vec::new();
    while leases.len() < count {
        leases.extend(consumer.receive(TOPIC, count - leases.len()).await.unwrap());
    }
    leases
}

async fn one(fake: &Fake, consumer: &Consumer) -> Lease {
    leases(fake, consumer, 1).await.remove(0)
}

fn whole(code: Code) -> Result<pb::AckMessageResponse, Status> {
    Ok(pb::AckMessageResponse {
        status: status(code),
        entries: vec![],
    })
}

fn entry(id: &str, code: Code) -> pb::AckMessageResultEntry {
    let (message_id, receipt_handle) = (id.to_owned(), format!("h-{id}"));
    result(
        pb::AckMessageEntry {
            message_id,
            receipt_handle,
            lite_topic: None,
        },
        code,
    )
}

#[tokio::test(start_paused = true)]
async fn acknowledgements_are_sent_together_and_each_is_confirmed_once() {
    const COUNT: usize = 1000;
    let fake = Fake::start();
    let consumer = fake.consumer().await;
    let leases = leases(&fake, &consumer, COUNT).await;
    fake.state().delay = Duration::from_millis(5);
    leases
        .into_iter()
        .for_each(|lease| consumer.settle(lease, Settlement::Ack));
    let mut confirmed = Vec::new();
    while confirmed.len() < COUNT {
        for settled in consumer.settled().await {
            assert!(settled.result.is_ok() && settled.how == Settlement::Ack);
            confirmed.push(settled.lease);
        }
    }
    confirmed.sort();
    confirmed.dedup();
    assert_eq!(confirmed.len(), COUNT);
    let state = fake.state();
    assert!(
        state.seen.acks.len() <= COUNT / 32 + 1,
        "{} requests",
        state.seen.acks.len()
    );
    assert_eq!(state.seen.acks.iter().map(Vec::len).sum::<usize>(), COUNT);
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_to_an_ack_is_made_good() {
    let fake = Fake::start();
    let consumer = fake.consumer().await;
    let lease = one(&fake, &consumer).await;
    fake.state().acks = [
        Err(Status::unavailable("lost")),
        whole(Code::InternalServerError),
        whole(Code::TooManyRequests),
        whole(Code::MultipleResults),
    ]
    .into();
    consumer.ack(lease).await.unwrap();
    assert_eq!(fake.calls("ack"), 5);
}

#[tokio::test(start_paused = true)]
async fn an_entry_that_is_refused_does_not_harm_its_neighbours() {
    let fake = Fake::start();
    let consumer = fake.consumer().await;
    let leases = leases(&fake, &consumer, 3).await;
    // In another order than asked for.
    let entries = vec![
        entry("2", Code::InternalServerError),
        entry("0", Code::Ok),
        entry("1", Code::InvalidReceiptHandle),
    ];
    fake.state().acks = [Ok(pb::AckMessageResponse {
        status: status(Code::MultipleResults),
        entries,
    })]
    .into();
    leases
        .into_iter()
        .for_each(|lease| consumer.settle(lease, Settlement::Ack));
    let mut reports = Vec::new();
    while reports.len() < 3 {
        reports.extend(consumer.settled().await);
    }
    reports.sort_by(|a, b| a.message_id.cmp(&b.message_id));
    assert!(
        reports[0].result.is_ok() && reports[2].result.is_ok(),
        "{reports:?}"
    );
    assert!(reports[1].result.as_ref().unwrap_err().is_receipt_expired());
    let state = fake.state();
    assert_eq!(state.seen.acks.len(), 2);
    assert_eq!(
        state.seen.acks[1][0].message_id, "2",
        "only what may pass is tried again"
    );
    drop(state);
    assert_eq!(consumer.stats().failed_settlements, 1);
}

#[tokio::test(start_paused = true)]
async fn an_ack_that_never_succeeds_is_given_up_when_the_lease_is_over() {
    let fake = Fake::start();
    let consumer = fake.consumer().await;
    let lease = one(&fake, &consumer).await;
    let deadline = lease.deadline();
    fake.state().acks = (0..1000)
        .map(|_| whole(Code::InternalServerError))
        .collect();
    let error = consumer.ack(lease).await.unwrap_err();
    assert!(error.is_receipt_expired(), "{error:?}");
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert!(source.contains("INTERNAL_SERVER_ERROR"), "{source}");
    let now = Instant::now();
    assert!(now <= deadline && deadline - now < Duration::from_secs(2));
    assert!(
        (8..40).contains(&fake.calls("ack")),
        "{} tries in 10 s",
        fake.calls("ack")
    );
}

#[tokio::test(start_paused = true)]
async fn failures_go_back_with_their_delay_and_the_dead_are_moved() {
    let fake = Fake::start();
    let consumer = fake.consumer().await;
    let mut leases = leases(&fake, &consumer, 3).await.into_iter();
    consumer
        .retry_after(leases.next().unwrap(), Duration::from_millis(2500))
        .await
        .unwrap();
    consumer.hand_back(leases.next().unwrap()).await.unwrap();
    consumer.dead_letter(leases.next().unwrap()).await.unwrap();
    let state = fake.state();
    let delays: Vec<_> = state
        .seen
        .changes
        .iter()
        .map(|it| it.invisible_duration.unwrap())
        .collect();
    assert_eq!((delays[0].seconds, delays[0].nanos), (2, 500_000_000));
    assert_eq!((delays[1].seconds, delays[1].nanos), (0, 0));
    assert_eq!(state.seen.dead, ["2"]);
}

#[tokio::test(start_paused = true)]
async fn an_extension_replaces_the_handle() {
    let fake = Fake::start();
    let consumer = fake.consumer().await;
    let mut lease = one(&fake, &consumer).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let deadline = consumer
        .extend(&mut lease, Duration::from_secs(20))
        .await
        .unwrap();
    assert_eq!(deadline, lease.deadline());
    assert!(deadline > Instant::now() + Duration::from_secs(19));
    consumer
        .extend(&mut lease, Duration::from_secs(20))
        .await
        .unwrap();
    consumer.ack(lease).await.unwrap();
    let state = fake.state();
    assert_eq!(state.seen.changes[1].receipt_handle, "h-0+");
    assert_eq!(state.seen.acks[0][0].receipt_handle, "h-0++");
}

#[tokio::test(start_paused = true)]
async fn an_extension_that_nobody_waited_for_does_not_lose_the_handle() {
    let fake = Fake::start();
    let consumer = fake.consumer().await;
    let mut lease = one(&fake, &consumer).await;
    fake.state().delay = Duration::from_millis(100);
    let extension = consumer.extend(&mut lease, Duration::from_secs(20));
    assert!(
        tokio::time::timeout(Duration::from_millis(10), extension)
            .await
            .is_err()
    );
    consumer.ack(lease).await.unwrap();
    assert_eq!(fake.state().seen.acks[0][0].receipt_handle, "h-0+");
}

#[tokio::test(start_paused = true)]
async fn an_ack_is_in_doubt_when_an_extension_may_have_worked_before_it_was_refused() {
    let fake = Fake::start();
    let consumer = fake.consumer().await;
    let mut lease = one(&fake, &consumer).await;
    let refused = pb::ChangeInvisibleDurationResponse {
        status: status(Code::Forbidden),
        receipt_handle: String::new(),
    };
    fake.state().changes = [Err(Status::unavailable("lost")), Ok(refused)].into();
    let extended = consumer.extend(&mut lease, Duration::from_secs(20)).await;
    assert!(!extended.unwrap_err().is_retryable());
    let error = consumer.ack(lease).await.unwrap_err();
    assert!(error.to_string().contains("delivered again"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn an_extension_that_came_too_late_says_so() {
    let fake = Fake::start();
    let consumer = fake.consumer().await;
    let mut lease = one(&fake, &consumer).await;
    let refused = pb::ChangeInvisibleDurationResponse {
        status: status(Code::InvalidReceiptHandle),
        receipt_handle: String::new(),
    };
    fake.state().changes = [Ok(refused)].into();
    let before = lease.deadline();
    let error = consumer
        .extend(&mut lease, Duration::from_secs(20))
        .await
        .unwrap_err();
    assert!(error.is_receipt_expired(), "{error:?}");
    assert_eq!(lease.deadline(), before);
}

#[tokio::test(start_paused = true)]
async fn a_hand_back_whose_answer_was_lost_is_done_when_its_handle_is_void() {
    let fake = Fake::start();
    let consumer = fake.consumer().await;
    let lease = one(&fake, &consumer).await;
    let void = pb::ChangeInvisibleDurationResponse {
        status: status(Code::InvalidReceiptHandle),
        receipt_handle: String::new(),
    };
    fake.state().changes = [Err(Status::unavailable("lost")), Ok(void)].into();
    consumer.hand_back(lease).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_settlement_after_the_close_is_refused() {
    let fake = Fake::start();
    let consumer = fake.consumer().await;
    let mut leases = leases(&fake, &consumer, 2).await.into_iter();
    consumer
        .close(Instant::now() + Duration::from_secs(5))
        .await
        .unwrap();
    assert!(
        consumer
            .ack(leases.next().unwrap())
            .await
            .unwrap_err()
            .is_closed()
    );
    consumer.settle(leases.next().unwrap(), Settlement::HandBack);
    let reports = consumer.settled().await;
    assert!(reports[0].result.as_ref().unwrap_err().is_closed());
    assert!(consumer.settled().await.is_empty(), "everything is told");
    eventually("the end", || fake.state().seen.changes.is_empty()).await;
}

#[tokio::test]
async fn a_settlement_may_be_asked_for_outside_of_the_runtime() {
    let fake = Fake::start();
    let consumer = std::sync::Arc::new(fake.consumer().await);
    let leases = leases(&fake, &consumer, 2).await;
    let asking = consumer.clone();
    let thread = std::thread::spawn(move || {
        for (lease, how) in leases
            .into_iter()
            .zip([Settlement::Ack, Settlement::HandBack])
        {
            asking.settle(lease, how);
        }
    });
    tokio::task::spawn_blocking(|| thread.join().unwrap())
        .await
        .unwrap();
    let mut confirmed = 0;
    while confirmed < 2 {
        for settled in consumer.settled().await {
            settled.result.unwrap();
            confirmed += 1;
        }
    }
}
