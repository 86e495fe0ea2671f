//! The laws, on the memory driver.

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use kratos_broker::{
    Delivery, Group, Topic,
    memory::{Broker, dead_letter_topic},
    testing::{Bounds, Harness},
};

/// `make laws`: everything at full size.
const OPTIMISED: bool = cfg!(not(debug_assertions));

#[derive(Default)]
struct Memory {
    broker: Broker,
    units: bool,
    /// The kind that the largest law is tried on.
    plain: bool,
    names: AtomicU32,
}

impl Memory {
    fn name(&self, hint: &str) -> String {
        // The exporter of spans is shared by all laws: names are unique in the process.
        static PROCESS: AtomicU32 = AtomicU32::new(0);
        let number = PROCESS.fetch_add(1, Ordering::Relaxed);
        format!(
            "{hint}-{number}-{}",
            self.names.fetch_add(1, Ordering::Relaxed)
        )
    }
}

impl Harness for Memory {
    type Driver = Broker;

    async fn driver(&self) -> Broker {
        self.broker.clone()
    }

    async fn topic(&self, hint: &str) -> Topic {
        self.name(hint).into()
    }

    async fn group(&self, hint: &str) -> Group {
        self.name(hint).into()
    }

    fn dead_letter_topic(&self, group: &Group) -> Option<Topic> {
        Some(dead_letter_topic(group))
    }

    async fn dead_letters(&self, group: &Group) -> Vec<Delivery> {
        self.broker.dead_letters(group)
    }

    async fn stop_broker(&self) -> bool {
        self.broker.disconnect();
        true
    }

    async fn restart_broker(&self) {
        self.broker.reconnect();
    }

    fn invisible(&self) -> Duration {
        // What a process keeps that gets a tenth of a core.
        Duration::from_secs(3)
    }

    fn bounds(&self) -> Bounds {
        Bounds {
            redelivery_late: Duration::from_secs(1),
            prime: Duration::from_millis(10),
            // Without units, the store looks through all that wait for each receive.
            per_group: if self.units || OPTIMISED { 1_000 } else { 50 },
            backlog: if self.plain || OPTIMISED {
                100_000
            } else {
                5_000
            },
            ..Bounds::default()
        }
    }
}

fn plain() -> Memory {
    Memory {
        plain: true,
        ..Memory::default()
    }
}

kratos_broker::conformance!(plain());

mod hand_back_spends_an_attempt {
    use super::*;

    fn harness() -> Memory {
        Memory {
            broker: Broker::new().hand_back_spends_attempt(),
            ..Memory::default()
        }
    }

    kratos_broker::conformance!(harness());
}

mod batches_are_units {
    use super::*;

    fn harness() -> Memory {
        Memory {
            broker: Broker::new()
                .batches_are_units(4)
                .hand_back_spends_attempt(),
            units: true,
            ..Memory::default()
        }
    }

    kratos_broker::conformance!(harness());
}
