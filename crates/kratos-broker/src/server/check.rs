//! What is asked before the server runs: what `bind` would find wrong.

use std::{sync::Arc, time::Duration};

use kratos::{AppInfo, Check, Finding, StartContext};
use tokio::time::Instant;

use crate::{
    Consumer, Driver, Error, Result, Subscription,
    router::{GroupPlan, plan},
};

/// Who joins and leaves again, for drivers that name it.
const NAME: &str = "check";

/// How long a consumer may take to leave the group again.
const LEAVE: Duration = Duration::from_secs(2);

/// One question per group: its topics, their types, the group and its settings. It is answered by
/// joining the group as the server does, which receives nothing, and leaving it.
pub(super) fn checks<D: Driver>(
    driver: &D,
    subscriptions: impl Iterator<Item = Subscription>,
) -> Vec<Check> {
    let plans = plan(
        subscriptions.map(|it| (it, ())),
        D::SYSTEM,
        driver.capabilities(),
    );
    match plans {
        Ok(plans) => plans.into_iter().map(|plan| of(driver, plan)).collect(),
        Err(error) => {
            let wrong = kratos::error_chain(&error).to_string();
            let ask = move || {
                let finding = Finding::new(wrong.clone(), "change the subscriptions");
                async move { Err(finding) }
            };
            vec![Check::new("subscriptions fit together", ask)]
        }
    }
}

fn of<D: Driver>(driver: &D, plan: GroupPlan<()>) -> Check {
    let topics: Vec<&str> = plan.topics.iter().map(|it| it.topic.as_str()).collect();
    let topics = topics.join(", ");
    let name = format!("group {} of {topics}", plan.group);
    let (driver, plan) = (driver.clone(), Arc::new(plan));
    Check::new(name, move || {
        let (driver, plan) = (driver.clone(), plan.clone());
        async move {
            let joined = join(&driver, &plan).await;
            joined.map_err(|error| finding::<D>(&error))
        }
    })
}

async fn join<D: Driver>(driver: &D, plan: &GroupPlan<()>) -> Result<String> {
    if plan.broadcast {
        return Ok("not asked: each instance makes a group of its own".to_owned());
    }
    // Whoever asks bounds the time.
    let never = Instant::now() + Duration::from_secs(3_600);
    let cx = StartContext::detached(AppInfo::new(NAME, ""), never);
    let consumer = driver.consumer(plan.spec(), cx).await?;
    let fits = plan.check_attempts(D::SYSTEM, &consumer);
    let attempts = consumer.attempts_limit();
    consumer.stop_receiving().await;
    let left = consumer.close(Instant::now() + LEAVE).await;
    fits?;
    left?;
    Ok(attempts.map_or_else(String::new, |limit| format!("{limit} attempts")))
}

/// Errors of a start say what to do at their end.
fn finding<D: Driver>(error: &Error) -> Finding {
    let chain = kratos::error_chain(error).to_string();
    match chain.split_once(": create it: ") {
        Some((wrong, command)) => Finding::new(wrong, format!("create it: {command}")),
        None if error.is_transient() => {
            Finding::new(chain, format!("see whether {} answers", D::SYSTEM))
        }
        None => Finding::new(chain, "the start would fail so: mend it there, or here"),
    }
}
