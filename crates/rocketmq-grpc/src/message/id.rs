//! Message ids as all clients of RocketMQ 5 make them: version, a node, process, second, sequence.

use std::{
    process,
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use crate::{backoff::random_u64, hex};

/// 2021-01-01T00:00:00Z, from which the seconds of an id count.
const EPOCH_SECOND: u64 = 1_609_459_200;
const VERSION: u64 = 1;

/// The next id of this process. 34 digits: version (1 byte), random in place of the MAC address
/// (6), process id (2), seconds (4), sequence (4).
pub(super) fn next() -> String {
    static NODE: OnceLock<u64> = OnceLock::new();
    static SEQUENCE: AtomicU32 = AtomicU32::new(0);
    let node = *NODE.get_or_init(random_u64) & 0xffff_ffff_ffff;
    let pid = process::id() & 0xffff;
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |it| it.as_secs());
    let second = now.saturating_sub(EPOCH_SECOND) & 0xffff_ffff;
    let sequence = SEQUENCE.fetch_add(1, Ordering::Relaxed);
    let parts = [
        (VERSION, 2),
        (node, 12),
        (u64::from(pid), 4),
        (second, 8),
        (u64::from(sequence), 8),
    ];
    let mut id = String::with_capacity(34);
    for (number, digits) in parts {
        hex::push(&mut id, number, digits, true);
    }
    id
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn ids_are_34_upper_hex_digits_and_differ() {
        let ids: HashSet<String> = (0..1000).map(|_| next()).collect();
        assert_eq!(ids.len(), 1000);
        for id in ids {
            assert_eq!(id.len(), 34);
            assert!(id.starts_with("01"));
            assert!(
                id.bytes()
                    .all(|it| it.is_ascii_digit() || (b'A'..=b'F').contains(&it)),
                "{id}"
            );
        }
    }
}
