//! What to do about an error, where there is one thing to do.

use super::{At, Error};

impl Error {
    pub(super) fn hint(&self) -> Option<String> {
        let At { topic, group, .. } = &self.inner.at;
        let topic = topic.as_deref().unwrap_or("<topic>");
        let group = group.as_deref().unwrap_or("<group>");
        if self.is_unknown_topic() {
            return Some(format!(
                "create it: rocketmq-admin topic create {topic}:NORMAL --namesrv <namesrv>"
            ));
        }
        if self.is_unknown_group() {
            return Some(format!(
                "create it: rocketmq-admin group create {group} --namesrv <namesrv>"
            ));
        }
        if self.is_wrong_topic_type() {
            return Some(format!(
                "send another type of message, or create a topic of this type: rocketmq-admin topic \
                 create {topic}:<NORMAL|FIFO|DELAY|TRANSACTION|PRIORITY|LITE> --namesrv <namesrv>"
            ));
        }
        if self.is_unauthorized() {
            return Some(
                "check the credentials (Config::credentials) and what the user may do: mqadmin \
                 getUser, getAcl"
                    .to_owned(),
            );
        }
        None
    }
}
