//! What can be asked before a server runs.

use kratos::{Finding, Server as _};
use kratos_broker::{Bytes, Policy, Router, Subscription, memory::Broker};

use crate::support::server;

async fn ignore(_: Bytes) {}

/// The name and the answer of each check.
async fn asked(broker: &Broker, router: Router) -> Vec<(String, Result<String, Finding>)> {
    let mut answers = Vec::new();
    for check in server(broker, router).describe().checks() {
        answers.push((check.name().to_owned(), check.ask().await));
    }
    answers
}

#[tokio::test]
async fn each_group_is_asked_about_as_a_start_would() {
    let router = Router::new()
        .subscribe("a", "g1", ignore)
        .subscribe("b", "g1", ignore)
        .subscribe("a", "g2", ignore);
    let answers = asked(&Broker::new().max_attempts(7), router).await;
    let ok = Ok("7 attempts".to_owned());
    let expected = [
        ("group g1 of a, b".to_owned(), ok.clone()),
        ("group g2 of a".to_owned(), ok),
    ];
    assert_eq!(answers, expected);
}

#[tokio::test]
async fn what_the_start_would_refuse_is_found() {
    let many = Subscription::new("t", "g").policy(Policy::new().max_attempts(9));
    let router = Router::new().subscribe_with(many, ignore);
    let answers = asked(&Broker::new().max_attempts(3), router).await;
    let finding = answers[0].1.as_ref().unwrap_err();
    assert!(
        finding.wrong.contains("9 attempts, the group has 3"),
        "{finding:?}"
    );

    let router = Router::new()
        .subscribe("t", "g", ignore)
        .subscribe("t", "g", ignore);
    let answers = asked(&Broker::new(), router).await;
    assert_eq!(answers.len(), 1);
    let finding = answers[0].1.as_ref().unwrap_err();
    assert!(
        finding.wrong.contains("would get the same message"),
        "{finding:?}"
    );
}
