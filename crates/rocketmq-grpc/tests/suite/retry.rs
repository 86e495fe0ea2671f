//! What becomes of messages whose handlers fail.

use rocketmq_grpc::{ConsumerConfig, Filter, PushConsumer};

use crate::{
    fifo::{assert_in_order, ordered},
    listener::{assert_each_once, ids, take_one},
    site::{Group, Kind, Site, numbered, send_each, soon},
};

const COUNT: usize = 10;
/// How often a push consumer of an orderly group tries a message, whatever the group is set to: the
/// server would deliver everything behind it again, too.
const ORDERLY_ATTEMPTS: usize = 3;

/// PushConsumerRetryTest.testNormalTopicPushConsumerRetry; e2e-v4: testNormalMessageReconsumeTime
#[tokio::test]
async fn messages_that_fail_once_come_a_second_time() {
    let (site, topic, group) = Site::with(Kind::Normal, Group::PLAIN).await;
    let listener = site
        .listen_and(&topic, &group, Filter::all(), |_, times| times > 1)
        .await;
    let producer = site.producer(&topic).await;
    let sent = send_each(&producer, numbered(&topic, COUNT)).await;
    listener.wait_for(2 * COUNT).await;
    let got = listener.stop().await;
    for attempt in [1, 2] {
        let of_attempt = got.iter().filter(|it| it.attempt == attempt);
        assert_each_once(&of_attempt.cloned().collect::<Vec<_>>(), &sent);
    }
    assert_eq!(got.len(), 2 * COUNT);
}

/// e2e-v4: PushConsumerRetryTest.testNormalMessageRetryTimesSetting
#[tokio::test]
async fn a_message_that_always_fails_is_a_dead_letter_after_the_retries_of_its_group() {
    let retries = 2;
    let of_group = Group {
        retries,
        ..Group::PLAIN
    };
    let (site, topic, group) = Site::with(Kind::Normal, of_group).await;
    let listener = site
        .listen_and(&topic, &group, Filter::all(), |_, _| false)
        .await;
    let producer = site.producer(&topic).await;
    let sent = send_each(&producer, numbered(&topic, 1)).await;
    let dead = site.dead_letters(&group).await;
    assert_eq!(take_one(&dead).await.id, sent[0]);
    let attempts: Vec<_> = listener.stop().await.iter().map(|it| it.attempt).collect();
    assert_eq!(attempts, (1..=retries + 1).collect::<Vec<_>>());
}

/// e2e-v4: PushConsumerRetryTest.testExceptionConsumption
#[tokio::test]
async fn a_message_whose_handler_panics_comes_again() {
    let (site, topic, group) = Site::with(Kind::Normal, Group::PLAIN).await;
    let listener = site
        .listen_and(&topic, &group, Filter::all(), |_, times| {
            assert!(times > 1, "panics on purpose");
            true
        })
        .await;
    let producer = site.producer(&topic).await;
    let sent = send_each(&producer, numbered(&topic, 1)).await;
    listener.wait_for(2).await;
    assert_eq!(ids(&listener.stop().await), [&*sent[0], &*sent[0]]);
}

async fn fails_once_in_order(groups: usize) {
    let (site, topic, group) = Site::with(Kind::Fifo, Group::ORDERLY).await;
    let listener = site
        .listen_and(&topic, &group, Filter::all(), |_, times| times > 1)
        .await;
    let producer = site.producer(&topic).await;
    let sent = send_each(&producer, (0..COUNT).map(|n| ordered(&topic, n, groups))).await;
    listener.wait_for(2 * COUNT).await;
    let got = listener.stop().await;
    assert_in_order(&got, groups);
    assert_each_once(&got, &[sent.clone(), sent].concat());
}

/// PushConsumerRetryTest.testFiFoTopicPushConsumerRetry; e2e-v4: testOrderMessageReconsumeTime
#[tokio::test]
async fn a_message_of_a_message_group_that_fails_is_tried_again_before_the_next() {
    fails_once_in_order(1).await;
}

/// PushConsumerRetryTest.testFiFoTopicWith3ShardingkeyPushConsumerRetry
#[tokio::test]
async fn messages_of_three_message_groups_that_fail_are_tried_again_in_order() {
    fails_once_in_order(3).await;
}

/// e2e-v4: PushConsumerRetryTest.testOrderMessageRetryTimesSetting (attempts of ours, not the
/// group's, see `ORDERLY_ATTEMPTS`), testOrderMessageRetryTimesWithMaxReconsumeimes
#[tokio::test]
async fn a_message_that_always_fails_leaves_its_message_group_as_a_dead_letter() {
    let (site, topic, group) = Site::with(Kind::Fifo, Group::ORDERLY).await;
    let listener = site
        .listen_and(&topic, &group, Filter::all(), |it, _| it.body != "000")
        .await;
    let producer = site.producer(&topic).await;
    let sent = send_each(&producer, (0..COUNT).map(|n| ordered(&topic, n, 1))).await;
    listener.wait_for(ORDERLY_ATTEMPTS + COUNT - 1).await;
    let (failed, rest) = sent.split_first().unwrap();
    let dead = site.dead_letters(&group).await;
    assert_eq!(&take_one(&dead).await.id, failed);
    let got = ids(&listener.stop().await);
    assert_eq!(
        got[..ORDERLY_ATTEMPTS],
        vec![failed.clone(); ORDERLY_ATTEMPTS]
    );
    assert_eq!(&got[ORDERLY_ATTEMPTS..], rest);
}

/// Clients issue 816: a stop in the middle of retries.
#[tokio::test]
async fn what_a_stopped_consumer_could_not_handle_comes_to_the_next() {
    let (site, topic, group) = Site::with(Kind::Normal, Group::PLAIN).await;
    let never = async |_| std::future::pending::<Result<(), String>>().await;
    let config = ConsumerConfig::new(&group).subscribe(&topic, Filter::all());
    let stuck = PushConsumer::start(&site.client, config, 4, never)
        .await
        .unwrap();
    let producer = site.producer(&topic).await;
    let sent = send_each(&producer, numbered(&topic, COUNT)).await;
    let by = tokio::time::Instant::now() + std::time::Duration::from_secs(1);
    // Whatever it has begun by now, or not.
    let _ = stuck.stop(by).await;
    let listener = site.listen(&topic, &group).await;
    listener.wait_for(COUNT).await;
    assert_each_once(&listener.stop().await, &sent);
    site.producer(&topic).await.close(soon()).await;
}
