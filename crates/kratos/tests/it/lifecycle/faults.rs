//! What fails is named, at the start and later, and what was begun before is ended.

use std::time::Duration;

use kratos::Error;
use tokio::time::{Instant, timeout};

use super::run_and_stop;
use crate::support::{Events, Serve, Step, app, chain};

#[tokio::test(start_paused = true)]
async fn a_server_that_cannot_bind_is_named_and_nothing_leaks() {
    for (step, message) in [
        (
            Step::Fail,
            "server `grpc`: bind failed: bind of grpc went wrong",
        ),
        (
            Step::Panic,
            "server `grpc`: bind panicked: bind of grpc blew up",
        ),
        (
            Step::Hang,
            "server `grpc`: bind did not finish in its 30.0 s",
        ),
    ] {
        let events = Events::default();
        let error = app()
            .resource(events.resource("db"))
            .server(events.server("http"))
            .server(events.server("grpc").bind(step))
            .server(events.server("later"))
            .run()
            .await
            .unwrap_err();
        assert_eq!(chain(&error), message);
        assert!(events.has("closed db"), "{:?}", events.all());
        assert!(
            !events.has("serve http") && !events.has("bind later"),
            "{:?}",
            events.all()
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_resource_that_cannot_open_is_named_and_those_before_it_close() {
    for (step, message) in [
        (
            Step::Fail,
            "resource `broker`: open failed: broker went wrong",
        ),
        (
            Step::Panic,
            "resource `broker`: open panicked: broker blew up",
        ),
    ] {
        let events = Events::default();
        let error = app()
            .resource(events.resource("db"))
            .resource(events.resource("broker").open(step))
            .resource(events.resource("later"))
            .server(events.server("http"))
            .run()
            .await
            .unwrap_err();
        assert_eq!(chain(&error), message);
        assert_eq!(
            events.all(),
            ["open db", "open broker", "close db", "closed db"]
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_fault_that_may_pass_is_retried_until_it_does() {
    let events = Events::default();
    let begun = Instant::now();
    run_and_stop(app().resource(events.resource("broker").away_until(8)))
        .await
        .unwrap();
    assert_eq!(
        events.all().iter().filter(|e| *e == "open broker").count(),
        8
    );
    assert!(
        begun.elapsed() > Duration::from_secs(1),
        "no back-off: {:?}",
        begun.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn a_fault_that_does_not_pass_ends_the_start_at_its_timeout() {
    let events = Events::default();
    let begun = Instant::now();
    let error = app()
        .start_timeout(Duration::from_secs(10))
        .resource(events.resource("broker").open(Step::Transient))
        .run()
        .await
        .unwrap_err();
    let tried = begun.elapsed();
    assert!(
        tried > Duration::from_secs(7) && tried < Duration::from_secs(11),
        "{tried:?}"
    );
    let message = chain(&error);
    assert!(
        message.contains("resource `broker`") && message.contains("attempts"),
        "{message}"
    );
    assert!(
        message.ends_with("broker is away"),
        "the last error is lost: {message}"
    );
    assert!(!error.is_transient());
}

#[tokio::test(start_paused = true)]
async fn a_hung_open_ends_at_the_start_timeout() {
    let events = Events::default();
    let error = app()
        .start_timeout(Duration::from_secs(10))
        .resource(events.resource("broker").open(Step::Hang))
        .run()
        .await
        .unwrap_err();
    assert!(
        chain(&error).contains("no answer in 10.0 s"),
        "{}",
        chain(&error)
    );
}

#[tokio::test(start_paused = true)]
async fn a_server_that_ends_early_stops_the_app() {
    for (serve, message) in [
        (Serve::Returns, "server `mq` ended before it was asked to"),
        (Serve::Fails, "server `mq` failed: the wire was cut"),
        (Serve::Panics, "server `mq` panicked: the server blew up"),
    ] {
        let events = Events::default();
        let running = app()
            .resource(events.resource("db"))
            .server(events.server("http"))
            .server(events.server("mq").serve(serve))
            .run();
        let error = timeout(Duration::from_secs(60), running)
            .await
            .unwrap()
            .unwrap_err();
        assert_eq!(chain(&error), message);
        assert!(
            events.has("stopped http") && events.has("closed db"),
            "{:?}",
            events.all()
        );
    }
}

/// A panic in any step is an error with the culprit's name, and the other steps still run.
#[tokio::test(start_paused = true)]
async fn a_panic_in_a_hook_or_a_close_names_it() {
    let events = Events::default();
    let app = app()
        .resource(events.resource("db"))
        .resource(events.resource("cache").close(Step::Panic))
        .after_stop("bye", {
            let events = events.clone();
            |_| async move { events.push("bye") }
        });
    let error = run_and_stop(app).await.unwrap_err();
    assert_eq!(
        chain(&error),
        "resource `cache`: close panicked: close of cache blew up"
    );
    assert!(events.has("closed db") && events.has("bye"));

    let explode = |_| async {
        if true {
            panic!("boom");
        }
    };
    let error = self::app()
        .before_start("migrate", explode)
        .run()
        .await
        .unwrap_err();
    assert_eq!(chain(&error), "before-start hook `migrate` panicked: boom");
}

#[tokio::test(start_paused = true)]
async fn retry_gives_up_at_the_deadline_and_says_why() {
    let info = kratos::AppInfo::new("test", "0");
    let cx = kratos::StartContext::detached(info, Instant::now() + Duration::from_secs(5));
    let mut attempts = 0;
    let error = cx
        .retry("the routes of topic `a`", || {
            attempts += 1;
            async { Err::<(), _>(Error::msg("connection refused").transient()) }
        })
        .await
        .unwrap_err();
    let message = chain(&error);
    assert!(
        message.starts_with("gave up on the routes of topic `a` after "),
        "{message}"
    );
    assert!(
        message.ends_with("connection refused") && attempts > 3,
        "{attempts}: {message}"
    );

    let permanent = cx
        .retry("x", || async { Err::<(), _>(Error::msg("no such topic")) })
        .await;
    assert_eq!(chain(&permanent.unwrap_err()), "no such topic");
}
