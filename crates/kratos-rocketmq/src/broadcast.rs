//! Broadcast: RocketMQ 5's gRPC protocol has none, so each instance gets a group of its own.

use std::{
    collections::BTreeSet,
    hash::{DefaultHasher, Hasher as _},
    sync::{Mutex, PoisonError},
};

use kratos_broker::{Error, ErrorKind, Result, driver::GroupSpec};

/// Of the subscription's group, and of the instance's id, in the name of the instance's group: the
/// server takes 127 bytes, the name of its dead-letter topic included.
const PART_BYTES_MAX: usize = 45;

/// Of a part that does not fit as it is, before the hash that keeps it apart from others: names of
/// pods differ at their ends.
const PART_CUT: usize = PART_BYTES_MAX - 9;

/// Where groups of instances are made.
#[derive(Clone, Debug)]
pub(crate) enum Site {
    /// On a broker in this process.
    #[cfg(feature = "embedded")]
    Embedded(rocketmq_devbroker::DevBroker),
    /// Through the name servers.
    #[cfg(feature = "admin")]
    Cluster(rocketmq_admin::Admin),
    /// Nowhere: no address was given.
    Nowhere,
}

/// The group of one instance; removed when it is let go.
#[derive(Debug)]
pub(crate) struct OwnGroup {
    pub(crate) name: String,
    site: Site,
    removed: bool,
}

/// Names that are in use in this process.
static NAMES: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// `<group>-bc-<instance>-<number>`. An instance with an id of its own gets the same names after a
/// restart, and so takes over what a crash has left.
fn name(group: &str, instance: &str) -> String {
    let first = format!("{}-bc-{}", part(group), part(instance));
    let mut names = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
    let mut number = 0;
    loop {
        let name = format!("{first}-{number}");
        if names.insert(name.clone()) {
            return name;
        }
        number += 1;
    }
}

/// A text that the server takes in a name. Two texts never become one: instances with one group
/// would share its messages instead of getting all of them.
fn part(text: &str) -> String {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "_-".contains(c);
    if text.len() <= PART_BYTES_MAX && text.chars().all(allowed) {
        return text.to_owned();
    }
    let chars = text.chars().map(|c| if allowed(c) { c } else { '_' });
    let start: String = chars.take(PART_CUT).collect();
    let mut hasher = DefaultHasher::new();
    hasher.write(text.as_bytes());
    format!("{start}-{:08x}", hasher.finish() & 0xffff_ffff)
}

fn release(name: &str) {
    let mut names = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
    names.remove(name);
}

impl OwnGroup {
    /// Makes the group, at the end of its topics.
    pub(crate) async fn create(site: Site, instance: &str, spec: &GroupSpec) -> Result<Self> {
        if matches!(site, Site::Nowhere) {
            return Err(nowhere(spec));
        }
        let own = Self {
            name: name(&spec.group, instance),
            site,
            removed: false,
        };
        match &own.site {
            #[cfg(feature = "embedded")]
            Site::Embedded(broker) => {
                let config = rocketmq_devbroker::GroupConfig::new().fifo(spec.fifo);
                let made = broker.create_group(&own.name, config);
                made.map_err(|error| own.cannot("make", error.into(), false))?;
            }
            #[cfg(feature = "admin")]
            Site::Cluster(admin) => {
                let group = rocketmq_admin::GroupSpec::new(&own.name).orderly(spec.fifo);
                let made = admin.create_group(&group).await;
                made.map_err(|error| own.refused("make", error))?;
                for topic in &spec.topics {
                    // A group counts from its first receive otherwise, and one that is here again
                    // from where it was.
                    let end = rocketmq_admin::Position::End;
                    let set = admin.reset_offset(&own.name, &topic.topic, end).await;
                    set.map_err(|error| own.refused("begin with", error))?;
                }
            }
            Site::Nowhere => {}
        }
        Ok(own)
    }

    /// Removes the group.
    pub(crate) async fn remove(mut self) -> Result<()> {
        let removed = match &self.site {
            #[cfg(feature = "admin")]
            Site::Cluster(admin) => {
                let removed = admin.delete_group(&self.name).await;
                removed.map_err(|error| self.refused("remove", error))
            }
            // A broker in this process forgets its groups with it.
            _ => Ok(()),
        };
        self.removed = true;
        release(&self.name);
        removed
    }

    #[cfg(feature = "admin")]
    fn refused(&self, what: &str, error: rocketmq_admin::Error) -> Error {
        let may_pass = error.is_retryable();
        self.cannot(what, error.into(), may_pass)
    }

    #[cfg(any(feature = "admin", feature = "embedded"))]
    fn cannot(
        &self,
        what: &str,
        source: Box<dyn std::error::Error + Send + Sync>,
        may_pass: bool,
    ) -> Error {
        let kind = if may_pass {
            ErrorKind::Transient
        } else {
            ErrorKind::Other
        };
        let name = &self.name;
        Error::new(kind, format!("cannot {what} group {name} of this instance")).with_source(source)
    }
}

fn nowhere(spec: &GroupSpec) -> Error {
    let group = &spec.group;
    Error::new(
        ErrorKind::Unsupported,
        format!(
            "a broadcast in group {group} needs a group for each instance, which is made through the \
             name servers: set rocketmq.admin to their host:port, and build kratos-rocketmq with the \
             feature admin"
        ),
    )
}

/// A start that was given up, or a server that was dropped: nobody waits for the removal.
impl Drop for OwnGroup {
    fn drop(&mut self) {
        if std::mem::replace(&mut self.removed, true) {
            return;
        }
        #[cfg(feature = "admin")]
        if let (Site::Cluster(admin), Ok(runtime)) =
            (&self.site, tokio::runtime::Handle::try_current())
        {
            let (admin, name) = (admin.clone(), self.name.clone());
            runtime.spawn(async move {
                if let Err(error) = admin.delete_group(&name).await {
                    let error = kratos::error_chain(&error);
                    tracing::warn!(group = name, %error, "could not remove the group of a broadcast");
                }
                release(&name);
            });
            return;
        }
        release(&self.name);
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn names_are_bounded_distinct_and_of_letters_that_the_server_takes() {
        let (a, b) = (super::name("cache", "pod.7"), super::name("cache", "pod.7"));
        assert!(a.starts_with("cache-bc-pod_7-"), "{a}");
        assert_ne!(a, b);
        assert_eq!(super::name("cache", "pod-7"), "cache-bc-pod-7-0");
        let long = super::name(&"g".repeat(200), &"i".repeat(200));
        assert!(long.len() + "%DLQ%".len() <= 127, "{long}");
    }
    #[test]
    fn instances_whose_ids_differ_anywhere_have_groups_of_their_own() {
        let pod = "analytics-of-a-long-deployment-name-7d9f8b6c5d";
        let of = |id: &str| super::part(id);
        assert_ne!(of(&format!("{pod}-x2x4z")), of(&format!("{pod}-q8k7m")));
        assert_ne!(of("pod.7"), of("pod_7"));
        assert_eq!(of("pod.7"), of("pod.7"), "after a restart, too");
    }
}
