//! Times and durations between std and protobuf, without panics on what a server may send.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub(crate) fn duration(it: &prost_types::Duration) -> Duration {
    let seconds = u64::try_from(it.seconds).unwrap_or(0);
    let nanos = u32::try_from(it.nanos).unwrap_or(0).min(999_999_999);
    Duration::new(seconds, nanos)
}

pub(crate) fn proto_duration(it: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(it.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(it.subsec_nanos()).unwrap_or(0),
    }
}

pub(crate) fn time(it: &prost_types::Timestamp) -> Option<SystemTime> {
    let since = Duration::new(
        u64::try_from(it.seconds).ok()?,
        u32::try_from(it.nanos).ok()?,
    );
    UNIX_EPOCH.checked_add(since)
}

pub(crate) fn proto_time(it: SystemTime) -> prost_types::Timestamp {
    let since = it.duration_since(UNIX_EPOCH).unwrap_or_default();
    prost_types::Timestamp {
        seconds: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(since.subsec_nanos()).unwrap_or(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn negative_and_huge_values_do_not_panic() {
        assert_eq!(
            duration(&prost_types::Duration {
                seconds: -1,
                nanos: -5
            }),
            Duration::ZERO
        );
        let huge = duration(&prost_types::Duration {
            seconds: i64::MAX,
            nanos: i32::MAX,
        });
        assert_eq!(proto_duration(huge).seconds, i64::MAX);
        assert_eq!(
            time(&prost_types::Timestamp {
                seconds: -1,
                nanos: 0
            }),
            None
        );
        let moment = UNIX_EPOCH + Duration::from_millis(1_234_567);
        assert_eq!(time(&proto_time(moment)), Some(moment));
    }
}
