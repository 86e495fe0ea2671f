//! The known defects of lifecycles like ours, each shown to be absent.

use std::time::Duration;

use kratos::{Error, Phase, Signals};
use tokio::time::{Instant, sleep};

use crate::support::{Events, ScriptedRegistrar, Serve, Step, app, chain};

/// Not: signals are heard only once the after-start hooks are done.
#[tokio::test(start_paused = true)]
async fn a_signal_is_heard_while_an_after_start_hook_runs() {
    let events = Events::default();
    let (signal, signals) = Signals::channel();
    let hook = events.clone();
    let app = app()
        .signals(signals)
        .server(events.server("http"))
        .resource(events.resource("db"))
        .after_start("warm the cache", |_| async move {
            hook.push("warming");
            signal.send();
            sleep(Duration::from_secs(20)).await;
            hook.push("warm");
        });
    let begun = Instant::now();
    app.run().await.unwrap();
    assert!(
        begun.elapsed() < Duration::from_secs(1),
        "{:?}",
        begun.elapsed()
    );
    assert!(
        events.has("stopped http") && events.has("closed db"),
        "{:?}",
        events.all()
    );
    assert!(!events.has("warm"));
}

/// Not: the registry knows the service before it listens.
#[tokio::test(start_paused = true)]
async fn registers_only_when_every_server_serves_and_is_ready() {
    let events = Events::default();
    let app = app()
        .server(events.server("http"))
        .server(
            events
                .server("grpc")
                .bind(Step::Take(Duration::from_secs(5))),
        )
        .registrar(ScriptedRegistrar {
            events: events.clone(),
            register: Step::Take(Duration::from_millis(10)),
            ..Default::default()
        });
    let handle = app.handle();
    let mut phases = handle.phases();
    let phase_events = events.clone();
    let watching = tokio::spawn(async move {
        while phases.changed().await.is_ok() {
            let phase = *phases.borrow_and_update();
            phase_events.push(phase);
            if phase == Phase::Stopped {
                return;
            }
        }
    });
    let stop = handle.clone();
    let app = app.after_start("done", |_| async move { stop.stop() });
    app.run().await.unwrap();
    watching.await.unwrap();
    let register = events.position("register");
    for before in ["bind http", "bind grpc", "serve http", "serve grpc"] {
        assert!(events.position(before) < register, "{:?}", events.all());
    }
    // The watcher hears of the phase one turn later.
    assert!(
        events.position("ready") <= register + 1,
        "{:?}",
        events.all()
    );
    assert!(events.position("serve http") < events.position("deregister"));
    assert!(
        events.position("bind grpc") < events.position("serve http"),
        "served before bound"
    );
    assert!(events.position("draining") < events.position("stopped http"));
}

/// Not: a failed register leaves the servers running.
#[tokio::test(start_paused = true)]
async fn a_failed_register_stops_everything_and_is_returned() {
    let events = Events::default();
    let error = app()
        .server(events.server("http"))
        .resource(events.resource("db"))
        .registrar(ScriptedRegistrar {
            events: events.clone(),
            register: Step::Fail,
            ..Default::default()
        })
        .run()
        .await
        .unwrap_err();
    assert_eq!(
        chain(&error),
        "registrar `registry`: register failed: the registry went wrong"
    );
    assert!(
        events.has("stopped http") && events.has("closed db"),
        "{:?}",
        events.all()
    );
    assert!(
        events.has("deregister"),
        "it may have reached the registry: {:?}",
        events.all()
    );
}

/// Not: a failed after-start hook leaves servers running, and the instance registered.
#[tokio::test(start_paused = true)]
async fn a_failed_after_start_hook_stops_and_deregisters() {
    let events = Events::default();
    let error = app()
        .server(events.server("http"))
        .registrar(ScriptedRegistrar {
            events: events.clone(),
            ..Default::default()
        })
        .after_start("warm the cache", |_| async { Err(Error::msg("no cache")) })
        .run()
        .await
        .unwrap_err();
    assert_eq!(
        chain(&error),
        "after-start hook `warm the cache` failed: no cache"
    );
    assert!(
        events.has("stopped http") && events.has("deregister"),
        "{:?}",
        events.all()
    );
}

/// Not: a failed deregister aborts the stop.
#[tokio::test(start_paused = true)]
async fn a_failed_deregister_is_recorded_and_the_stop_goes_on() {
    for deregister in [Step::Fail, Step::Hang, Step::Panic] {
        let events = Events::default();
        let (app, after) = (app(), events.clone());
        let handle = app.handle();
        let error = app
            .server(events.server("http"))
            .resource(events.resource("db"))
            .registrar(ScriptedRegistrar {
                events: events.clone(),
                deregister,
                ..Default::default()
            })
            .after_start("stop", |_| async move { handle.stop() })
            .after_stop("bye", |_| async move { after.push("after stop") })
            .run()
            .await
            .unwrap_err();
        assert!(
            chain(&error).starts_with("registrar `registry`: deregister"),
            "{error}"
        );
        for step in ["stopped http", "closed db", "after stop"] {
            assert!(events.has(step), "{deregister:?}: {:?}", events.all());
        }
    }
}

/// Not: the error of a hook overwrites that of the one before it.
#[tokio::test(start_paused = true)]
async fn every_stop_hook_runs_and_the_first_error_is_returned() {
    let events = Events::default();
    let app = app().server(events.server("http"));
    let handle = app.handle();
    let (second, third) = (events.clone(), events.clone());
    let error = app
        .after_start("stop", |_| async move { handle.stop() })
        .before_stop("first", |_| async { Err(Error::msg("one")) })
        .before_stop("second", |_| async move {
            second.push("second");
            Err("two")
        })
        .after_stop("third", |_| async move {
            third.push("third");
            Err("three")
        })
        .run()
        .await
        .unwrap_err();
    assert_eq!(chain(&error), "before-stop hook `first` failed: one");
    assert!(events.has("second") && events.has("third") && events.has("stopped http"));
}

/// Not: the stop has no bound unless one asks for it.
#[tokio::test(start_paused = true)]
async fn the_stop_is_bounded_without_any_setting() {
    let events = Events::default();
    let app = app()
        .server(events.server("deaf").serve(Serve::Deaf))
        .resource(events.resource("db").close(Step::Hang));
    let handle = app.handle();
    let begun = Instant::now();
    let error = app
        .after_start("stop", |_| async move { handle.stop() })
        .run()
        .await
        .unwrap_err();
    assert!(
        begun.elapsed() <= Duration::from_secs(26),
        "{:?}",
        begun.elapsed()
    );
    assert!(error.to_string().contains("`deaf`"), "{error}");
}

/// Not: the second signal is swallowed.
#[tokio::test(start_paused = true)]
async fn a_second_signal_ends_the_wait_at_once() {
    let events = Events::default();
    let (signal, signals) = Signals::channel();
    let app = app()
        .signals(signals)
        .server(
            events
                .server("busy")
                .serve(Serve::Work(Duration::from_secs(20))),
        )
        .server(events.server("deaf").serve(Serve::Deaf))
        .resource(events.resource("db"));
    let handle = app.handle();
    let running = tokio::spawn(app.run());
    handle.reached(Phase::Ready).await;
    signal.send();
    handle.reached(Phase::Draining).await;
    sleep(Duration::from_secs(2)).await;
    let second = Instant::now();
    signal.send();
    let error = running.await.unwrap().unwrap_err();
    assert!(
        second.elapsed() <= Duration::from_secs(1),
        "{:?}",
        second.elapsed()
    );
    assert!(
        events.has("cut busy") && events.has("closed db"),
        "{:?}",
        events.all()
    );
    assert_eq!(error.abandoned_ids(), ["work of busy"]);
}

/// Not: a parent's end cuts what is in flight.
#[tokio::test(start_paused = true)]
async fn a_parents_end_drains_work_in_flight() {
    let events = Events::default();
    let (end, ended) = tokio::sync::oneshot::channel::<()>();
    let app = app()
        .stop_when(async {
            let _gone = ended.await;
        })
        .server(
            events
                .server("busy")
                .serve(Serve::Work(Duration::from_secs(3))),
        )
        .before_stop("note", {
            let events = events.clone();
            |_| async move { events.push("before stop") }
        });
    let handle = app.handle();
    let running = tokio::spawn(app.run());
    handle.reached(Phase::Ready).await;
    drop(end);
    running.await.unwrap().unwrap();
    assert!(
        events.has("before stop") && events.has("stopped busy"),
        "{:?}",
        events.all()
    );
}

/// Not: after-stop hooks get a context that is over.
#[tokio::test(start_paused = true)]
async fn hooks_have_time_in_every_phase() {
    let app = app();
    let handle = app.handle();
    let check = |cx: kratos::HookContext| async move {
        sleep(Duration::from_millis(50)).await;
        if cx.deadline() > Instant::now() {
            Ok(())
        } else {
            Err("no time left")
        }
    };
    app.before_start("a", check)
        .after_start("b", check)
        .before_stop("c", check)
        .after_stop("d", check)
        .after_start("stop", |_| async move { handle.stop() })
        .run()
        .await
        .unwrap();
}
