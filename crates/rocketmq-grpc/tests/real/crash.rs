//! A consumer that goes without a word.

use std::{collections::HashMap, time::Duration};

use rocketmq_grpc::{Client, Lease};
use tokio::time::Instant;

use crate::server::{Place, Seen, client, in_seconds};

const LEASE: Duration = Duration::from_secs(10);

/// Those of the official clients are back after two minutes: the server goes on renewing what a dead
/// client holds.
#[tokio::test]
async fn what_a_crashed_consumer_held_is_back_within_the_lease_and_ten_seconds() {
    for (place, group) in [(Place::new(""), None), (Place::fifo(1, ""), Some("g"))] {
        place
            .consumer(LEASE)
            .await
            .close(in_seconds(5))
            .await
            .unwrap();
        let ids = place.send_of(group, 32).await;
        let mut first = place;
        let crashing = first.consumer_of_rest(LEASE).await;
        let mut held = Vec::new();
        while held.len() < ids.len() {
            let room = ids.len() - held.len();
            held.extend(crashing.receive(&first.topic, room).await.unwrap());
        }
        let attempt = |lease: &Lease| (lease.message().id.clone(), lease.message().attempt);
        let before: HashMap<_, _> = held.iter().map(attempt).collect();
        // No good-bye: the connections go, the leases with them.
        let gone: Client = std::mem::replace(&mut first.client, client());
        drop((crashing, gone, held));
        let crashed_at = Instant::now();
        let other = first.consumer_of_rest(LEASE).await;
        let mut seen = Seen::default();
        let by = crashed_at + LEASE + Duration::from_secs(10);
        while seen.0.len() < ids.len() {
            let received = tokio::time::timeout_at(by, other.receive(&first.topic, 32)).await;
            let leases = received.unwrap_or_else(|_| panic!("only {} are back", seen.0.len()));
            for lease in leases.unwrap() {
                // The broker may have given it to a receive that was gone in between.
                assert!(lease.message().attempt > before[&lease.message().id]);
                seen.add(&lease);
                other.settle(lease, rocketmq_grpc::Settlement::Ack);
            }
        }
        println!("all {} back after {:?}", ids.len(), crashed_at.elapsed());
        seen.assert_each_once(&ids);
        other.close(in_seconds(5)).await.unwrap();
    }
}
