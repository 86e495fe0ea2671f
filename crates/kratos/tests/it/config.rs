//! Where a configuration comes from, and what an error says.

use std::{collections::BTreeMap, fs, net::SocketAddr, path::PathBuf, time::Duration};

use kratos::config::Loader;
use serde::Deserialize;
use tempfile::TempDir;

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Config {
    app: kratos::Config,
    http: Http,
    store: Store,
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Http {
    addr: SocketAddr,
    body_limit: u32,
    ratio: f64,
    tls: bool,
    mode: Mode,
    #[serde(with = "kratos::config::duration")]
    timeout: Duration,
    #[serde(with = "kratos::config::duration::option")]
    linger: Option<Duration>,
}

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Store {
    path: Option<String>,
    password: String,
    hosts: Vec<String>,
    peers: Vec<SocketAddr>,
    sizes: Vec<u16>,
    labels: BTreeMap<String, String>,
    either: Option<Either>,
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Mode {
    Fast,
    Safe,
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(untagged)]
enum Either {
    Number(u64),
    Text(String),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Required {
    #[expect(dead_code, reason = "only read by serde")]
    store: RequiredStore,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RequiredStore {
    #[expect(dead_code, reason = "only read by serde")]
    path: u16,
}

/// A directory with one file, which is named on the command line.
struct File {
    _directory: TempDir,
    path: PathBuf,
}

impl Default for Http {
    fn default() -> Self {
        Self {
            addr: SocketAddr::from(([127, 0, 0, 1], 8000)),
            body_limit: 1024,
            ratio: 1.0,
            tls: false,
            mode: Mode::Safe,
            timeout: Duration::from_secs(1),
            linger: None,
        }
    }
}

impl File {
    fn new(text: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("app.toml");
        fs::write(&path, text).unwrap();
        Self {
            _directory: directory,
            path,
        }
    }

    fn loader(&self) -> Loader {
        Loader::new("absent").args(["--config".into(), self.path.clone()])
    }

    fn error(&self, vars: &[(&str, &str)]) -> String {
        message(self.loader().vars(vars.iter().copied()))
    }
}

fn from_vars(vars: &[(&str, &str)]) -> Config {
    Loader::new("absent")
        .directory("/nonexistent")
        .vars(vars.iter().copied())
        .load()
        .unwrap()
}

fn vars_error(vars: &[(&str, &str)]) -> String {
    let loader = Loader::new("absent").directory("/nonexistent");
    message(loader.vars(vars.iter().copied()))
}

fn message(loader: Loader) -> String {
    loader.load::<Config>().unwrap_err().to_string()
}

#[test]
fn is_the_defaults_when_nothing_is_given() {
    assert_eq!(from_vars(&[]), Config::default());
}

#[test]
fn prefers_the_environment_to_the_file_and_the_file_to_the_defaults() {
    let file =
        File::new("[http]\naddr = \"127.0.0.1:1\"\nbody_limit = 7\n[app]\nstop_timeout = \"9s\"");
    let vars = [("KRATOS_HTTP__ADDR", "[::1]:2")];
    let config: Config = file.loader().vars(vars).load().unwrap();

    assert_eq!(config.http.addr, "[::1]:2".parse().unwrap());
    assert_eq!(config.http.body_limit, 7);
    assert_eq!(config.app.stop_timeout, Duration::from_secs(9));
    assert_eq!(config.http.mode, Mode::Safe);
}

#[test]
fn prefers_the_option_to_the_variable_that_names_a_file() {
    let (option, variable) = (
        File::new("http.body_limit = 1"),
        File::new("http.body_limit = 2"),
    );
    let named = [("KRATOS_CONFIG", &variable.path)];

    let by_variable: Config = Loader::new("absent").vars(named).load().unwrap();
    let by_both: Config = option.loader().vars(named).load().unwrap();
    let equals = format!("--config={}", option.path.display());
    let by_equals: Config = Loader::new("absent")
        .args(["serve", equals.as_str(), "--", "--config"])
        .load()
        .unwrap();

    assert_eq!(by_variable.http.body_limit, 2);
    assert_eq!(by_both.http.body_limit, 1);
    assert_eq!(by_equals.http.body_limit, 1);
}

#[test]
fn takes_the_file_named_like_the_service_if_it_is_there() {
    let file = File::new("http.body_limit = 3");
    let directory = file.path.parent().unwrap();
    let there: Config = Loader::new("app").directory(directory).load().unwrap();
    let absent: Config = Loader::new("other").directory(directory).load().unwrap();
    assert_eq!(there.http.body_limit, 3);
    assert_eq!(absent, Config::default());
}

#[test]
fn reads_every_type_from_the_environment() {
    let config = from_vars(&[
        ("KRATOS_HTTP__BODY_LIMIT", " 4096 "),
        ("KRATOS_HTTP__RATIO", "1"),
        ("kratos_http__tls", "true"),
        ("KRATOS_HTTP__MODE", "fast"),
        ("KRATOS_HTTP__TIMEOUT", "1m30s"),
        ("KRATOS_HTTP__LINGER", "5ms"),
        ("KRATOS_STORE__PASSWORD", "0123"),
        ("KRATOS_STORE__PATH", "true"),
        ("KRATOS_STORE__HOSTS", "a, 2"),
        ("KRATOS_STORE__PEERS", "[\"127.0.0.1:1\", \"[::1]:2\"]"),
        ("KRATOS_STORE__SIZES", "1,2"),
        ("KRATOS_STORE__LABELS__ZONE", "7"),
        ("KRATOS_STORE__EITHER", "8"),
        ("PATH", "/bin"),
    ]);

    let peers = vec!["127.0.0.1:1".parse().unwrap(), "[::1]:2".parse().unwrap()];
    assert_eq!(
        config.http,
        Http {
            addr: Http::default().addr,
            body_limit: 4096,
            ratio: 1.0,
            tls: true,
            mode: Mode::Fast,
            timeout: Duration::from_secs(90),
            linger: Some(Duration::from_millis(5)),
        }
    );
    assert_eq!(
        config.store,
        Store {
            path: Some("true".into()),
            password: "0123".into(),
            hosts: vec!["a".into(), "2".into()],
            peers,
            sizes: vec![1, 2],
            labels: BTreeMap::from([("zone".into(), "7".into())]),
            either: Some(Either::Number(8)),
        }
    );
}

#[test]
fn takes_an_empty_variable_as_no_value_and_an_empty_list() {
    let config = from_vars(&[
        ("KRATOS_CONFIG", ""),
        ("KRATOS_STORE__PATH", ""),
        ("KRATOS_STORE__HOSTS", ""),
        ("KRATOS_STORE__PASSWORD", ""),
    ]);
    assert_eq!(config, Config::default());
}

#[test]
fn keeps_a_quoted_text_where_no_type_is_wanted() {
    let config = from_vars(&[("KRATOS_STORE__EITHER", "\"8\"")]);
    assert_eq!(config.store.either, Some(Either::Text("8".into())));
}

#[test]
fn names_an_unknown_key_of_the_file_and_the_accepted_ones() {
    let file = File::new("[app]\nstop_timeuot = \"1s\"");
    assert_eq!(
        file.error(&[]),
        format!(
            "unknown key `app.stop_timeuot` in {}, accepted here: start_timeout, stop_timeout, \
             close_reserve, drain_delay",
            file.path.display()
        )
    );
}

#[test]
fn names_an_unknown_variable_as_it_was_written() {
    assert_eq!(
        vars_error(&[("Kratos_Htp__Addr", "127.0.0.1:1")]),
        "unknown key `htp` in the environment variable Kratos_Htp__Addr, accepted here: app, http, \
         store"
    );
    let nameless = vars_error(&[("KRATOS_HTTP__", "1")]);
    assert!(
        nameless.contains("KRATOS_HTTP__ names no key"),
        "{nameless}"
    );
}

#[test]
fn says_what_was_found_and_what_is_expected() {
    let file = File::new("[http]\nbody_limit = \"12\"");
    let path = file.path.display();
    assert_eq!(
        file.error(&[]),
        format!("wrong value for `http.body_limit` in {path}: found \"12\", expected u32")
    );
    let file = File::new("http = 5");
    let path = file.path.display();
    assert_eq!(
        file.error(&[]),
        format!("wrong value for `http` in {path}: found integer `5`, expected a section")
    );
    let cases = [
        (
            "HTTP__ADDR",
            "nowhere",
            "`http.addr`",
            "found \"nowhere\": invalid socket address",
        ),
        (
            "HTTP__BODY_LIMIT",
            "-1",
            "`http.body_limit`",
            "found integer `-1`, expected u32",
        ),
        (
            "HTTP__BODY_LIMIT",
            "ten",
            "`http.body_limit`",
            "found \"ten\", expected u32",
        ),
        (
            "HTTP__TLS",
            "maybe",
            "`http.tls`",
            "found \"maybe\", expected a boolean",
        ),
        (
            "HTTP__MODE",
            "slow",
            "`http.mode`",
            "found \"slow\", expected one of fast, safe",
        ),
        (
            "HTTP__TIMEOUT",
            "5",
            "`http.timeout`",
            "found \"5\", expected a duration such as",
        ),
        (
            "STORE__SIZES",
            "1,x",
            "`store.sizes[1]`",
            "found \"x\", expected u16",
        ),
        ("STORE__SIZES", "[1, ", "`store.sizes`", "no TOML array"),
        ("HTTP", "x", "`http`", "found \"x\", expected a section"),
    ];
    for (variable, value, key, reason) in cases {
        let variable = format!("KRATOS_{variable}");
        let error = vars_error(&[(&variable, value)]);
        assert!(error.contains(&variable), "{error}");
        assert!(error.contains(key), "{error}");
        assert!(error.contains(reason), "{error}");
    }
}

#[test]
fn reports_all_errors_at_once() {
    let file = File::new("htp = 1\n[http]\ntls = 3\nadr = \"x\"\n[store]\nsizes = [1, \"x\"]");
    let error = file.error(&[("KRATOS_HTTP__BODY_LIMIT", "ten"), ("KRATOS_STROE", "1")]);
    assert!(
        error.starts_with("the configuration has 6 errors:\n"),
        "{error}"
    );
    for part in [
        "`htp`",
        "`http.tls`",
        "`http.adr`",
        "`store.sizes[1]`",
        "HTTP__BODY_LIMIT",
        "STROE",
    ] {
        assert_eq!(error.matches(part).count(), 1, "{part} in {error}");
    }
}

#[test]
fn names_a_missing_key_once_and_how_to_set_it() {
    let missing = Loader::new("absent")
        .directory("/nonexistent")
        .vars([("KRATOS_STORE", "")])
        .load::<Required>();
    let wrong = missing.unwrap_err().to_string();
    assert!(wrong.starts_with("wrong value for `store`"), "{wrong}");

    let file = File::new("[store]");
    let missing = file.loader().load::<Required>().unwrap_err().to_string();
    assert_eq!(
        missing,
        "missing key `store.path`: set it in the file, or as KRATOS_STORE__PATH"
    );

    let wrong = file
        .loader()
        .vars([("KRATOS_STORE__PATH", "x")])
        .load::<Required>();
    let wrong = wrong.unwrap_err().to_string();
    assert!(
        wrong.contains("found \"x\"") && !wrong.contains("missing"),
        "{wrong}"
    );
}

#[test]
fn points_at_the_line_and_column_of_a_syntax_error() {
    let file = File::new("[http]\naddr = = 1\n");
    let error = file.error(&[]);
    let place = format!("{}:2:8: not valid TOML: ", file.path.display());
    assert!(error.starts_with(&place), "{error}");

    let error = File::new("a = 1\na = 2").error(&[]);
    assert!(
        error.contains("app.toml:2:1: not valid TOML: duplicate key"),
        "{error}"
    );
}

#[test]
fn says_who_named_a_file_that_is_missing() {
    let by_option = Loader::new("absent").args(["--config", "/nonexistent/a.toml"]);
    let by_variable = Loader::new("absent").vars([("KRATOS_CONFIG", "/nonexistent/b.toml")]);
    let cases = [
        (
            by_option,
            "cannot read the configuration file /nonexistent/a.toml, named by --config: ",
        ),
        (
            by_variable,
            "cannot read the configuration file /nonexistent/b.toml, named by KRATOS_CONFIG: ",
        ),
    ];
    for (loader, start) in cases {
        let error = loader.load::<Config>().unwrap_err();
        let chain = kratos::error_chain(&error).to_string();
        assert!(
            chain.starts_with(start) && chain.contains("No such file"),
            "{chain}"
        );
    }
}

#[test]
fn wants_exactly_one_file_after_the_option() {
    for args in [
        &["--config"][..],
        &["--config", "--verbose"],
        &["--config="],
    ] {
        let error = message(Loader::new("absent").args(args));
        assert_eq!(error, "--config needs a file: write `--config FILE`");
    }
    let twice = message(Loader::new("absent").args(["--config", "a", "--config=b"]));
    assert!(twice.contains("more than once, first with a"), "{twice}");
}

#[test]
fn refuses_two_variables_for_one_key() {
    let error = vars_error(&[("KRATOS_HTTP__TLS", "true"), ("kratos_http__tls", "false")]);
    assert!(error.contains("both set `http.tls`"), "{error}");
    let error = vars_error(&[
        ("KRATOS_STORE__LABELS", "x"),
        ("KRATOS_STORE__HOSTS", "x"),
        ("KRATOS_STORE__LABELS__A", "y"),
    ]);
    assert!(
        error.contains("KRATOS_STORE__LABELS and KRATOS_STORE__LABELS__A"),
        "{error}"
    );
}

#[cfg(unix)]
#[test]
fn refuses_a_value_that_is_not_utf8() {
    use std::{ffi::OsString, os::unix::ffi::OsStringExt};

    let value = OsString::from_vec(vec![0xff]);
    let error = message(Loader::new("absent").vars([("KRATOS_HTTP__ADDR", value)]));
    assert_eq!(
        error,
        "the value of the environment variable KRATOS_HTTP__ADDR is not UTF-8"
    );
}
