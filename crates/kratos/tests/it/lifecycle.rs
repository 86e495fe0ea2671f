//! Start, stop, and what goes wrong in between.

mod faults;
mod stop;

use std::time::Duration;

use kratos::{App, Health, Phase, ServerState, ServerStatus, Signals, registry};
use tokio::{sync::watch, time::sleep};

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
async fn the_handle_shows_servers_and_resources_from_start_to_stop() {
    let events = Events::default();
    let app = app()
        .server(events.server("a"))
        .server(events.server("b"))
        .resource(events.resource("db"));
    let described = app.describe();
    let names: Vec<_> = described
        .servers
        .iter()
        .map(|(name, _)| name.as_str())
        .collect();
    assert_eq!(names, ["a", "b"]);
    let handle = app.handle();
    assert!(handle.servers().is_empty() && handle.info().is_none());

    let run = tokio::spawn(app.run());
    let serving =
        |s: &[ServerStatus]| s.len() == 2 && s.iter().all(|s| s.state == ServerState::Serving);
    handle.reached(Phase::Ready).await;
    assert!(serving(&handle.servers()));
    assert_eq!(handle.resources(), ["db"]);
    assert_eq!(handle.info().unwrap().name(), "test");
    assert_eq!(handle.servers()[0].health, Some(kratos::Health::Serving));

    handle.stop();
    handle
        .servers_reached(|servers| servers.iter().all(|s| s.state == ServerState::Ended))
        .await;
    run.await.unwrap().unwrap();
    assert_eq!(handle.phase(), Phase::Stopped);
}
