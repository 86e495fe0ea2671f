//! The stop keeps to its deadline.

use std::time::Duration;

use kratos::Phase;
use tokio::time::{Instant, sleep};

use super::run_and_stop;
use crate::support::{Events, ScriptedRegistrar, Serve, Step, app};

#[tokio::test(start_paused = true)]
async fn a_hung_step_takes_no_time_of_another() {
    let events = Events::default();
    let hang = |_| async { std::future::pending::<()>().await };
    let note = events.clone();
    let app = app()
        .stop_timeout(Duration::from_secs(10))
        .resource(
            events
                .resource("telemetry")
                .close(Step::Take(Duration::from_millis(200))),
        )
        .resource(events.resource("hung").close(Step::Hang))
        .server(
            events
                .server("quick")
                .serve(Serve::Work(Duration::from_secs(2))),
        )
        .server(events.server("deaf").serve(Serve::Deaf))
        .registrar(ScriptedRegistrar {
            events: events.clone(),
            deregister: Step::Hang,
            ..Default::default()
        })
        .before_stop("hung", hang)
        .after_stop("bye", |_| async move { note.push("bye") });
    let begun = Instant::now();
    run_and_stop(app).await.unwrap_err();
    let took = begun.elapsed();
    assert!(took <= Duration::from_millis(10_600), "{took:?}");
    for step in ["stopped quick", "closed telemetry", "bye"] {
        assert!(events.has(step), "no {step}: {:?}", events.all());
    }
}

/// S2: past the deadline, what was cut is named, and the whole stop is over in time.
#[tokio::test(start_paused = true)]
async fn work_past_the_deadline_is_cut_and_named() {
    let events = Events::default();
    let app = app()
        .stop_timeout(Duration::from_secs(10))
        .resource(events.resource("db"))
        .server(
            events
                .server("a")
                .serve(Serve::Work(Duration::from_secs(60))),
        )
        .server(
            events
                .server("b")
                .serve(Serve::Work(Duration::from_secs(60))),
        );
    let begun = Instant::now();
    let error = run_and_stop(app).await.unwrap_err();
    let took = begun.elapsed();
    // Two seconds, a fifth of the deadline, are kept for closing.
    assert!(
        took >= Duration::from_secs(8) && took < Duration::from_secs(10),
        "{took:?}"
    );
    let mut ids = error.abandoned_ids().to_vec();
    ids.sort();
    assert_eq!(ids, ["work of a", "work of b"]);
    assert!(events.has("closed db"));
}

/// S5, for the App's own part.
#[tokio::test(start_paused = true)]
async fn an_idle_app_stops_at_once() {
    let events = Events::default();
    let begun = Instant::now();
    run_and_stop(
        app()
            .server(events.server("http"))
            .resource(events.resource("db")),
    )
    .await
    .unwrap();
    assert!(
        begun.elapsed() < Duration::from_millis(100),
        "{:?}",
        begun.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn the_drain_delay_passes_before_servers_are_asked_to_stop() {
    let events = Events::default();
    let app = app()
        .drain_delay(Duration::from_secs(5))
        .server(events.server("http").serve(Serve::Work(Duration::ZERO)));
    let handle = app.handle();
    let running = tokio::spawn(run_and_stop(app));
    handle.reached(Phase::Draining).await;
    assert!(!handle.is_ready());
    sleep(Duration::from_millis(4_900)).await;
    assert!(!events.has("asked http"));
    running.await.unwrap().unwrap();
    assert!(events.has("asked http"));
}

#[tokio::test]
async fn a_drain_delay_that_leaves_no_time_is_refused() {
    let error = app()
        .drain_delay(Duration::from_secs(20))
        .run()
        .await
        .unwrap_err();
    assert!(error.to_string().contains("drain_delay of 20s"), "{error}");
}
