//! What the `rocketmq` section takes, and what it says when something is wrong.

use std::{fs, path::PathBuf};

use kratos::App;
use kratos_rocketmq::{Client, Config};

use crate::site::Running;

/// A configuration from TOML and the environment.
fn load(toml: &str, vars: &[(&str, &str)]) -> kratos::Result<Config> {
    #[derive(Debug, Default, serde::Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct All {
        rocketmq: Config,
    }
    let file = file(&format!("load-{}.toml", toml.len()), toml);
    let loader = kratos::config::Loader::new("test");
    let args = ["--config".to_owned(), file.display().to_string()];
    let all: All = loader.args(args).vars(vars.iter().copied()).load()?;
    Ok(all.rocketmq)
}

fn file(name: &str, content: &str) -> PathBuf {
    let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("config");
    fs::create_dir_all(&dir).unwrap();
    let path = dir.join(name);
    fs::write(&path, content).unwrap();
    path
}

fn refused(config: Config) -> String {
    kratos::error_chain(&Client::new(config).unwrap_err()).to_string()
}

async fn start_refused(config: Config) -> String {
    let app = App::new().resource(Client::new(config).unwrap());
    let (result, _) = Running::start(app).ended().await;
    kratos::error_chain(&result.unwrap_err()).to_string()
}

#[test]
fn every_key_can_come_from_the_file_or_the_environment() {
    let toml = r#"
        [rocketmq]
        endpoints = "proxy:8081"
        namespace = "n"
        request_timeout = "5s"
        admin = "names:9876"
        [rocketmq.tls]
        ca = "ca.pem"
        server_name = "rocketmq"
        [rocketmq.credentials]
        access_key = "billing"
    "#;
    let secret = "KRATOS_ROCKETMQ__CREDENTIALS__SECRET_KEY";
    let config = load(toml, &[(secret, "do not print")]).unwrap();
    let tls = config.tls.clone().unwrap();
    assert!(tls.enabled);
    assert_eq!(tls.server_name.as_deref(), Some("rocketmq"));
    let credentials = config.credentials.clone().unwrap();
    assert_eq!(credentials.secret_key, "do not print");
    assert!(!format!("{config:?}").contains("do not print"));
    Client::new(config).unwrap();

    let on = load("", &[("KRATOS_ROCKETMQ__TLS__ENABLED", "true")]).unwrap();
    assert!(on.tls.is_some_and(|tls| tls.enabled && tls.ca.is_none()));
    assert!(load("", &[]).unwrap().tls.is_none());
}

#[test]
fn settings_that_lack_their_other_half_are_named() {
    let with = |section: &str| {
        let toml = format!("[rocketmq]\nendpoints = 'h:1'\n{section}");
        refused(load(&toml, &[]).unwrap())
    };
    assert!(with("[rocketmq.tls]\ncert = 'a.pem'").contains("rocketmq.tls: cert is set"));
    assert!(with("[rocketmq.tls]\nkey = 'a.pem'").contains("rocketmq.tls: key is set"));
    let both = "[rocketmq.tls]\nca = 'a.pem'\ndangerously_accept_any_certificate = true";
    assert!(with(both).contains("the ca is not looked at"));
    let half = with("[rocketmq.credentials]\naccess_key = 'a'");
    assert!(
        half.contains("KRATOS_ROCKETMQ__CREDENTIALS__SECRET_KEY"),
        "{half}"
    );
    assert!(with("admin = 'nowhere'").contains("rocketmq.admin is \"nowhere\""));
}

#[tokio::test]
async fn a_certificate_that_is_missing_or_none_is_named_with_its_setting() {
    let with = |section: &str| {
        let toml = format!("[rocketmq]\nendpoints = '127.0.0.1:1'\n[rocketmq.tls]\n{section}");
        load(&toml, &[]).unwrap()
    };
    let missing = start_refused(with("ca = '/nowhere/ca.pem'")).await;
    assert!(
        missing.contains("/nowhere/ca.pem, `rocketmq.tls.ca`"),
        "{missing}"
    );
    let none = file("none.pem", "no certificate");
    let said = start_refused(with(&format!("ca = '{}'", none.display()))).await;
    assert!(
        said.contains("rocketmq.tls.ca is") && said.contains("none.pem"),
        "{said}"
    );
    let none = none.display();
    let said = start_refused(with(&format!("cert = '{none}'\nkey = '{none}'"))).await;
    assert!(said.contains("rocketmq.tls.cert is"), "{said}");
}
