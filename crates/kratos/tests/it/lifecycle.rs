//! Start, stop, and what goes wrong in between.

use std::time::Duration;

use kratos::{App, Error, Health, Phase, Signals, registry};
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};

use crate::support::{Events, ScriptedRegistrar, Serve, Step, app, chain, eventually};

/// Runs `app` until it is ready, then stops it.
async fn run_and_stop(app: App) -> kratos::Result<()> {
    let handle = app.handle();
    app.after_start("stop", |_| async move { handle.stop() })
        .run()
        .await
}

#[tokio::test(start_paused = true)]
async fn starts_in_order_and_stops_in_reverse() {
    let events = Events::default();
    let note = |what: &'static str| {
        let events = events.clone();
        move |_| async move { events.push(what) }
    };
    let app = app()
        .resource(events.resource("telemetry"))
        .resource(events.resource("db"))
        .on_close("pool", {
            let events = events.clone();
            || async move { events.push("close pool") }
        })
        .server(
            events
                .server("http")
                .serve(Serve::Work(Duration::from_millis(5))),
        )
        .server(
            events
                .server("grpc")
                .serve(Serve::Work(Duration::from_millis(9))),
        )
        .registrar(ScriptedRegistrar {
            events: events.clone(),
            ..Default::default()
        })
        .before_start("b", note("before start"))
        .after_start("a", note("after start"))
        .before_stop("b", note("before stop"))
        .after_stop("a", note("after stop"));
    run_and_stop(app).await.unwrap();
    let expected = [
        "open telemetry",
        "open db",
        "before start",
        "bind http",
        "bind grpc",
        "serve http",
        "serve grpc",
        "register",
        "after start",
        "deregister",
        "before stop",
        "asked http",
        "asked grpc",
        "stopped http",
        "stopped grpc",
        "close pool",
        "close db",
        "closed db",
        "close telemetry",
        "closed telemetry",
        "after stop",
    ];
    assert_eq!(events.all(), expected);
}

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

/// S4: a stop at any moment of the start, and of the stop itself, is clean.
#[tokio::test(start_paused = true)]
async fn a_signal_at_any_moment_of_the_start_exits_cleanly() {
    for millis in 0..70 {
        let events = Events::default();
        let (signal, signals) = Signals::channel();
        let ten = Duration::from_millis(10);
        let app = app()
            .signals(signals)
            .resource(events.resource("db").open(Step::Take(ten)))
            .resource(events.resource("broker").open(Step::Take(ten)))
            .before_start("migrate", move |_| sleep(ten))
            .server(events.server("http").bind(Step::Take(ten)))
            .server(events.server("grpc").bind(Step::Take(ten)))
            .registrar(ScriptedRegistrar {
                events: events.clone(),
                register: Step::Take(ten),
                deregister: Step::Ok,
            })
            .after_start("warm", move |_| sleep(ten));
        let handle = app.handle();
        let running = tokio::spawn(app.run());
        sleep(Duration::from_millis(millis)).await;
        signal.send();
        running
            .await
            .unwrap()
            .unwrap_or_else(|e| panic!("at {millis} ms: {}", chain(&e)));
        assert_eq!(handle.phase(), Phase::Stopped);
        for name in ["http", "grpc"] {
            let (served, stopped) = (format!("serve {name}"), format!("stopped {name}"));
            assert_eq!(events.has(&served), events.has(&stopped), "at {millis} ms");
        }
        assert_eq!(
            events.has("register"),
            events.has("deregister"),
            "at {millis} ms"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_signal_that_came_before_the_app_stops_it() {
    let events = Events::default();
    let (signal, signals) = Signals::channel();
    signal.send();
    app()
        .signals(signals)
        .server(events.server("http"))
        .run()
        .await
        .unwrap();
    assert!(!events.has("serve http"), "{:?}", events.all());
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

#[tokio::test(start_paused = true)]
async fn readiness_is_the_phase_and_every_servers_health() {
    let events = Events::default();
    let (health, receiver) = watch::channel(Health::Serving);
    let app = app().server(events.server("mq").health(receiver));
    let handle = app.handle();
    assert!(!handle.is_ready());
    let running = tokio::spawn(app.run());
    handle.reached(Phase::Ready).await;
    assert!(handle.is_ready());

    health.send_replace(Health::Degraded("the broker is away".into()));
    eventually("degraded", || handle.health()["mq"] != Health::Serving).await;
    assert!(handle.is_ready(), "degraded is still ready");

    health.send_replace(Health::NotServing("the disk is full".into()));
    eventually("unready", || !handle.is_ready()).await;
    health.send_replace(Health::Serving);
    eventually("ready again", || handle.is_ready()).await;

    handle.stop();
    running.await.unwrap().unwrap();
    assert!(!handle.is_ready());
    assert_eq!(handle.phase(), Phase::Stopped);
}

#[tokio::test]
async fn two_servers_of_one_name_are_refused() {
    let events = Events::default();
    let error = app()
        .server(events.server("http"))
        .server(events.server("http"))
        .run()
        .await
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "two servers are named `http`: give one of them another name"
    );
    assert!(events.all().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_memory_registry_knows_the_app_while_it_is_ready() {
    let events = Events::default();
    let registry = registry::Memory::new();
    let app = app()
        .id("one")
        .name("saver")
        .version("1.2.3")
        .metadata("zone", "eu-1")
        .server(events.server("http"))
        .registrar(registry.clone());
    let handle = app.handle();
    let seen = registry.clone();
    app.after_start("look", |cx| async move {
        let [instance] = &seen.instances("saver")[..] else {
            panic!("not registered")
        };
        assert_eq!((&*instance.id, &*instance.version), ("one", "1.2.3"));
        assert_eq!(instance.metadata["zone"], "eu-1");
        assert_eq!(instance.endpoints[0].to_string(), "test://127.0.0.1:1");
        assert_eq!(cx.info().endpoints(), instance.endpoints);
        handle.stop();
    })
    .run()
    .await
    .unwrap();
    assert!(registry.instances("saver").is_empty());
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
