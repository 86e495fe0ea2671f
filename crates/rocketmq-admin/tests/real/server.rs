//! The server and names on it.

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rocketmq_admin::Admin;

/// How long the servers may take to tell each other.
pub(crate) const SOON: Duration = Duration::from_secs(20);

pub(crate) fn admin() -> Admin {
    let name_servers = std::env::var("ROCKETMQ_NAMESRV");
    Admin::new(name_servers.unwrap_or_else(|_| "127.0.0.1:9876".to_owned())).unwrap()
}

/// A name that no run before has used.
pub(crate) fn unique(what: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let n = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("adm-{what}-{}-{n}", now.as_micros())
}
