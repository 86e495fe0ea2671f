//! Several groups, and several consumers of one group.

use std::sync::{Arc, Mutex};

use rocketmq_grpc::{Filter, Message, MessageView};
use tokio::time::sleep;

use crate::{
    fifo::{assert_in_order, ordered},
    listener::assert_each_once,
    site::{GLANCE, Group, Kind, Site, in_time, numbered, send_at_once, send_each},
};

const COUNT: usize = 100;
/// Of the messages, sent between two changes of who consumes.
const PART: usize = 20;

/// ClusterTest.testBroadcastConsume: a group for each, as the protocol has no broadcast
#[tokio::test]
async fn each_of_three_groups_gets_all_messages() {
    let (site, topic, group) = Site::with(Kind::Normal, Group::PLAIN).await;
    let mut listeners = vec![site.listen(&topic, &group).await];
    for _ in 1..3 {
        let group = site.group(Group::PLAIN).await;
        listeners.push(site.listen(&topic, &group).await);
    }
    let producer = site.producer(&topic).await;
    let sent = send_at_once(&producer, numbered(&topic, COUNT)).await;
    for listener in listeners {
        listener.wait_for(COUNT).await;
        assert_each_once(&listener.stop().await, &sent);
    }
}

/// ClusterTest.testClusterConsume
#[tokio::test]
async fn three_consumers_of_a_group_share_the_messages() {
    let (site, topic, group) = Site::with(Kind::Normal, Group::PLAIN).await;
    let mut listeners = Vec::new();
    for _ in 0..3 {
        listeners.push(site.listen(&topic, &group).await);
    }
    let producer = site.producer(&topic).await;
    let sent = send_each(&producer, numbered(&topic, COUNT)).await;
    let all = async {
        while listeners.iter().map(|it| it.got().len()).sum::<usize>() < COUNT {
            sleep(GLANCE).await;
        }
    };
    in_time("all messages", all).await;
    let mut got = Vec::new();
    for listener in listeners {
        got.extend(listener.stop().await);
    }
    assert_each_once(&got, &sent);
}

/// Consumers join and leave while messages are sent, in order if there are message groups: each is
/// handled once, and in order whoever handles it.
async fn joining_and_leaving(kind: Kind, queues: u32, message_groups: usize) {
    let site = Site::start().await;
    let of_group = match kind {
        Kind::Fifo => Group::ORDERLY,
        _ => Group::PLAIN,
    };
    let (topic, group) = tokio::join!(site.topic(kind, queues), site.group(of_group));
    let producer = site.producer(&topic).await;
    let handled = Arc::new(Mutex::new(Vec::<MessageView>::new()));
    let join = async || {
        let handled = handled.clone();
        let note = move |message: &MessageView, _| {
            handled.lock().unwrap().push(message.clone());
            true
        };
        let joined = site.listen_and(&topic, &group, Filter::all(), note);
        joined.await
    };
    let send = async |part: usize| {
        let messages = (0..PART).map(|n| part * PART + n).map(|n| match kind {
            Kind::Fifo => ordered(&topic, n, message_groups),
            _ => Message::new(&topic, n.to_string()),
        });
        send_each(&producer, messages).await
    };

    let first = join().await;
    let mut sent = send(0).await;
    let second = join().await;
    sent.extend(send(1).await);
    let third = join().await;
    sent.extend(send(2).await);
    first.stop().await;
    sent.extend(send(3).await);
    second.stop().await;
    sent.extend(send(4).await);
    let all = async {
        while handled.lock().unwrap().len() < sent.len() {
            sleep(GLANCE).await;
        }
    };
    in_time("all messages", all).await;
    third.stop().await;
    let handled = handled.lock().unwrap();
    assert_each_once(&handled, &sent);
    if matches!(kind, Kind::Fifo) {
        assert_in_order(&handled, message_groups);
    }
}

/// e2e-v4: LoadBalancingTest, normal messages
#[tokio::test]
async fn consumers_that_join_and_leave_lose_nothing_and_handle_nothing_twice() {
    joining_and_leaving(Kind::Normal, 4, 1).await;
}

/// e2e-v4: LoadBalancingTest, global sequential messages
#[tokio::test]
async fn consumers_of_one_queue_in_order_that_join_and_leave_keep_the_order() {
    joining_and_leaving(Kind::Fifo, 1, 1).await;
}

/// e2e-v4: LoadBalancingTest, partition sequential messages
#[tokio::test]
async fn consumers_of_several_queues_in_order_that_join_and_leave_keep_the_order() {
    joining_and_leaving(Kind::Fifo, 4, 5).await;
}
