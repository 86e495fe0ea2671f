//! Dead letters over the dev broker: replayed by the API and by the command.

use std::{
    future::pending,
    sync::{Arc, Mutex},
    time::Duration,
};

use clap::Parser;
use kratos_broker::{
    AnyError, DeadLetter, Delivery, Disposition, HandlerError, Message, REPLAYED_ID, ReplayEnded,
    State,
};
use kratos_rocketmq::{Client, Config, Server, cli::DeadLetters, dead_letter_topic, replay};
use rocketmq_devbroker::{DevBroker, GroupConfig, TopicType};

use crate::site::{Running, eventually};

const TOPIC: &str = "orders";
const GROUP: &str = "billing";

/// What needs no waiting takes less, on a busy machine too.
const SOON: Duration = Duration::from_secs(15);

#[derive(Debug)]
struct Hopeless;

impl std::fmt::Display for Hopeless {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("hopeless")
    }
}

impl HandlerError for Hopeless {
    fn disposition(&self) -> Disposition {
        Disposition::Poison
    }
}

/// What the handler has seen, and whether it still fails.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<(bool, Vec<Delivery>)>>);

async fn handle(State(seen): State<Seen>, delivery: Delivery) -> Result<(), Hopeless> {
    let mut seen = seen.0.lock().unwrap();
    if !seen.0 {
        return Err(Hopeless);
    }
    seen.1.push(delivery);
    Ok(())
}

impl Seen {
    fn mend(&self) {
        self.0.lock().unwrap().0 = true;
    }

    fn all(&self) -> Vec<Delivery> {
        self.0.lock().unwrap().1.clone()
    }
}

struct Site {
    broker: DevBroker,
    client: Client,
    seen: Seen,
    app: Running,
}

impl Site {
    /// A service that has given up `count` messages.
    async fn with_letters(count: usize) -> Self {
        let broker = DevBroker::builder()
            .strict(true)
            .topic(TOPIC, TopicType::Normal)
            .group(GROUP, GroupConfig::new())
            .in_memory()
            .unwrap();
        let (client, seen) = (Client::of(broker.clone()), Seen::default());
        let app = kratos::App::new().resource(client.clone()).server(
            Server::new(client.clone())
                .subscribe(TOPIC, GROUP, handle)
                .with_state(seen.clone()),
        );
        let app = Running::start(app);
        app.ready().await;
        // A client of its own: the App closes the other.
        let client = Client::of(broker.clone());
        for n in 0..count {
            let message = Message::new(TOPIC, n.to_string())
                .key(format!("k{n}"))
                .tag(if n % 2 == 0 { "even" } else { "odd" })
                .header("shop", "12");
            client.publisher().publish(message).await.unwrap();
        }
        eventually("all are dead", || broker.dead_letters(GROUP).len() == count).await;
        seen.mend();
        Self {
            broker,
            client,
            seen,
            app,
        }
    }

    async fn stop(self) {
        self.app.signals.send();
        self.app.ended().await.0.unwrap();
    }
}

#[tokio::test]
async fn the_dead_letters_of_a_group_go_back_to_their_topic_once() {
    let site = Site::with_letters(5).await;
    let all = replay(GROUP).to(TOPIC).idle(Duration::from_secs(2));
    site.client.prepare_replay(&all).await.unwrap();
    let mut shown = 0;
    let listed = all
        .list(&site.client, pending(), |_| shown += 1)
        .await
        .unwrap();
    assert_eq!((shown, listed.matched, listed.replayed), (5, 5, 0));
    let odd = all.clone().tag("odd");
    let publisher = site.client.publisher();
    let report = odd.run(&publisher, pending(), |_| {}).await.unwrap();
    assert_eq!(
        (report.seen, report.replayed, report.unconfirmed),
        (5, 2, 0)
    );
    assert_eq!(report.ended, ReplayEnded::Exhausted);
    eventually("two are back", || site.seen.all().len() == 2).await;
    let report = all.run(&publisher, pending(), |_| {}).await.unwrap();
    assert_eq!(
        (report.seen, report.replayed),
        (3, 3),
        "the others, and no more"
    );
    eventually("all are back", || site.seen.all().len() == 5).await;
    for back in site.seen.all() {
        let body = std::str::from_utf8(back.body()).unwrap();
        assert_eq!(back.keys(), [format!("k{body}")]);
        assert_eq!(back.headers().get("shop"), Some("12"));
        let dead = site.broker.dead_letters(GROUP);
        let old = dead.iter().find(|it| it.body == body.as_bytes()).unwrap();
        assert_eq!(back.headers().get(REPLAYED_ID), Some(&*old.id));
    }
    site.stop().await;
}

#[tokio::test]
async fn a_reader_with_few_attempts_is_refused_with_the_command_that_raises_them() {
    let site = Site::with_letters(1).await;
    site.broker
        .create_group("billing-replay", GroupConfig::new())
        .unwrap();
    let all = replay(GROUP).to(TOPIC);
    let error = all.list(&site.client, pending(), |_| {}).await.unwrap_err();
    let words = error.to_string();
    for word in [
        "17 attempts",
        "rocketmq-admin group create billing-replay:retry=99",
    ] {
        assert!(words.contains(word), "{word:?} is not in: {words}");
    }
    site.stop().await;
}

#[tokio::test]
async fn preparing_a_replay_leaves_a_group_that_is_there_as_it_is() {
    let site = Site::with_letters(1).await;
    let ours = GroupConfig::new().retry_max_times(3);
    site.broker.create_group("readers", ours).unwrap();
    let all = replay(GROUP).to(TOPIC);
    let all = all.reading(dead_letter_topic(GROUP), "readers");
    site.client.prepare_replay(&all).await.unwrap();
    let error = all.list(&site.client, pending(), |_| {}).await.unwrap_err();
    assert!(error.to_string().contains("4 attempts"), "{error}");
    site.stop().await;
}

#[derive(Parser)]
enum Command {
    #[command(subcommand)]
    DeadLetters(DeadLetters),
}

async fn command(client: &Client, words: &str) -> Result<String, AnyError> {
    let words = ["app", "dead-letters"].into_iter().chain(words.split(' '));
    let Command::DeadLetters(command) = Command::try_parse_from(words)?;
    let mut out = Vec::new();
    command.run(client, pending(), &mut out).await?;
    Ok(String::from_utf8(out)?)
}

#[tokio::test]
async fn the_command_lists_and_replays() {
    let site = Site::with_letters(4).await;
    let list = command(&site.client, "list billing --tag even --idle 2s")
        .await
        .unwrap();
    let lines: Vec<&str> = list.lines().collect();
    assert_eq!(lines.len(), 4, "{list}");
    assert!(
        lines[0].starts_with("ID\t") && lines[1].contains("\teven\tk0\t1\t"),
        "{list}"
    );
    assert_eq!(lines[3], "2 found of 4 read; all were read");

    let error = command(&site.client, "replay billing --idle 2s")
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains("does not say which topic"),
        "{error}"
    );
    let words = "replay billing --to orders --key k3 --born-after 1h --idle 2s";
    let replayed = command(&site.client, words).await.unwrap();
    assert!(
        replayed.ends_with("1 sent back of 4 read; all were read\n"),
        "{replayed}"
    );
    eventually("it is back", || site.seen.all().len() == 1).await;
    let words = "list billing --born-before 1h --idle 2s";
    let none = command(&site.client, words).await.unwrap();
    assert!(
        none.ends_with("0 found of 3 read; all were read\n"),
        "{none}"
    );
    assert!(
        command(&site.client, "list billing --born-after yesterday")
            .await
            .is_err()
    );
    site.stop().await;
}

#[tokio::test]
async fn the_command_says_that_a_group_has_no_dead_letters_yet() {
    let site = Site::with_letters(0).await;
    for words in ["list billing", "replay billing --to orders"] {
        let said = command(&site.client, words).await.unwrap();
        assert!(said.contains("none: there is no %DLQ%billing"), "{said}");
    }
    let words = "list billing --from billing-dead";
    let error = command(&site.client, words).await.unwrap_err();
    assert!(error.to_string().contains("billing-dead"), "{error}");
    site.stop().await;

    // From elsewhere, where nobody can look but by the protocol.
    let broker = DevBroker::builder()
        .strict(true)
        .listen(([127, 0, 0, 1], 0))
        .start()
        .await
        .unwrap();
    let config = Config {
        endpoints: Some(broker.addr().unwrap().to_string()),
        ..Config::default()
    };
    let client = Client::new(config).unwrap();
    let said = tokio::time::timeout(SOON, command(&client, "list billing")).await;
    let said = said.unwrap().unwrap();
    assert!(said.contains("none: there is no %DLQ%billing"), "{said}");
}

#[tokio::test]
async fn the_command_reads_a_topic_of_dead_letters_after_those_of_the_group() {
    const DEAD: &str = "billing-dead";
    let site = Site::with_letters(2).await;
    let list = command(&site.client, "list billing --idle 2s")
        .await
        .unwrap();
    assert!(
        list.ends_with("2 found of 2 read; all were read\n"),
        "{list}"
    );
    site.broker.create_topic(DEAD, TopicType::Normal).unwrap();
    for n in 0..3 {
        let letter = Message::new(DEAD, n.to_string()).header(DeadLetter::ORIGIN_TOPIC, TOPIC);
        site.client.publisher().publish(letter).await.unwrap();
    }
    let words = "list billing --from billing-dead --idle 2s";
    let list = command(&site.client, words).await.unwrap();
    assert!(
        list.ends_with("3 found of 3 read; all were read\n"),
        "{list}"
    );
    assert!(
        site.broker.has_group("billing-dead-replay"),
        "a reader of its own"
    );
    let words = "replay billing --from billing-dead --reader again --idle 2s";
    let replayed = command(&site.client, words).await.unwrap();
    assert!(
        replayed.ends_with("3 sent back of 3 read; all were read\n"),
        "{replayed}"
    );
    eventually("all are back", || site.seen.all().len() == 3).await;
    site.stop().await;
}

#[test]
fn the_topic_of_dead_letters_is_named_as_the_server_names_it() {
    assert_eq!(dead_letter_topic("g"), "%DLQ%g");
}
