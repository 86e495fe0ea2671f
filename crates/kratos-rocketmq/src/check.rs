//! What is asked before an App runs: is the cluster there, and the topics that are sent to.

use kratos::{Check, Finding};
use kratos_broker::Error;

use crate::{Client, error::neutral};

const TRANSACTION: &str = "TRANSACTION";

/// Whether anything answers where the client connects to.
pub(crate) fn reachable(client: &Client) -> Check {
    let client = client.clone();
    Check::new("RocketMQ answers", move || {
        let client = client.clone();
        async move {
            let at = client.endpoints();
            let answered = async { client.client()?.ping().await.map_err(neutral) };
            answered.await.map(|()| at.to_owned()).map_err(|error| {
                let remedy = format!(
                    "start the proxy at {at}, or set rocketmq.endpoints to where its gRPC port is"
                );
                finding(&error, &remedy)
            })
        }
    })
}

/// Whether a topic exists and takes what is sent: in transactions, or not.
pub(crate) fn topic(client: &Client, (topic, transactional): (String, bool)) -> Check {
    let client = client.clone();
    Check::new(format!("topic {topic}"), move || {
        let (client, topic) = (client.clone(), topic.clone());
        async move {
            let asked = async { client.client()?.topic_types(&topic).await.map_err(neutral) };
            match asked.await {
                Ok(types) => fits(&topic, &types, transactional),
                Err(error) => Err(finding(&error, "see what is said of RocketMQ")),
            }
        }
    })
}

/// A server that does not say takes all.
fn fits(topic: &str, types: &[&str], transactional: bool) -> Result<String, Finding> {
    let is = types.join(", ");
    let fits = types.iter().any(|it| (*it == TRANSACTION) == transactional);
    if fits || types.is_empty() {
        return Ok(is);
    }
    Err(match transactional {
        true => Finding::new(
            format!("topic {topic} takes {is} messages, none in transactions"),
            format!(
                "send to a topic of that type: rocketmq-admin topic create \
                 <topic>:{TRANSACTION} --namesrv <namesrv>"
            ),
        ),
        false => Finding::new(
            format!("topic {topic} takes {is} messages, and this service answers for none"),
            "name a checker with Client::transaction_checker, or send to another topic",
        ),
    })
}

/// The chain of an error; ours say what to do where they know.
fn finding(error: &Error, remedy: &str) -> Finding {
    let chain = kratos::error_chain(error).to_string();
    match chain.split_once(": create it: ") {
        Some((wrong, command)) => Finding::new(wrong, format!("create it: {command}")),
        None => Finding::new(chain, remedy),
    }
}

#[cfg(test)]
mod tests {
    use super::fits;

    #[test]
    fn a_topic_takes_what_is_sent_or_not() {
        for (types, plain, in_transactions) in [
            (&[][..], true, true),
            (&["NORMAL"], true, false),
            (&["FIFO"], true, false),
            (&["TRANSACTION"], false, true),
            (&["DELAY", "FIFO", "NORMAL", "TRANSACTION"], true, true),
        ] {
            assert_eq!(fits("t", types, false).is_ok(), plain, "{types:?}");
            assert_eq!(fits("t", types, true).is_ok(), in_transactions, "{types:?}");
        }
    }
}
