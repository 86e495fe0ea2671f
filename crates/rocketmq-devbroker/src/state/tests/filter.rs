//! Conditions, as the real server judges them.

use proptest::prelude::*;
use rocketmq_proto::v2::{Code, FilterType};

use crate::state::{
    Ask, Draft, Refusal, Stored, Timestamp,
    filter::Filter,
    tests::bench::{Bench, draft},
};

/// Id, properties and tag.
type Case = (
    &'static str,
    &'static [(&'static str, &'static str)],
    Option<&'static str>,
);

/// Properties and tag of the messages that the table is about. The number is the message's id.
const MESSAGES: [Case; 8] = [
    ("0", &[], None),
    ("1", &[("a", "1"), ("b", "x"), ("c", "true")], Some("T1")),
    ("2", &[("a", "2"), ("b", "y"), ("c", "false")], Some("T2")),
    ("3", &[("a", "10"), ("b", "it's")], None),
    ("4", &[("a", "abc"), ("b", "1.5")], Some("T1")),
    ("5", &[("a", "-3.5"), ("b", "zed"), ("d", "5")], None),
    ("6", &[("a", "2.0"), ("c", "TRUE")], Some("T3")),
    ("7", &[("a", "9223372036854775808"), ("b", "")], None),
];

/// What the real server delivers, by id.
const MEASURED: &[(&str, &str)] = &[
    ("a = 1", "1"),
    ("a = 2", "2"),
    ("a = 2.0", "26"),
    ("a > 1", "23"),
    ("a >= 2", "23"),
    ("a < 2", "1"),
    ("a <= 2", "12"),
    ("a <> 2", "13"),
    ("a = '2'", "2"),
    ("a = 'abc'", "4"),
    ("b = 'x'", "1"),
    ("b <> 'x'", "2345"),
    ("b = 'it''s'", "3"),
    ("a BETWEEN 1 AND 2", "12"),
    ("a NOT BETWEEN 1 AND 2", "3"),
    ("a between 2 and 10", "23"),
    ("b IN ('x','y')", "12"),
    ("b NOT IN ('x','y')", "345"),
    ("b in ('x')", "1"),
    ("a IN ('1','2')", "12"),
    ("c IS NULL", "03457"),
    ("c IS NOT NULL", "126"),
    ("c = TRUE", "16"),
    ("c = true", "16"),
    ("c = 'true'", "1"),
    ("c <> TRUE", "2"),
    ("c", ""),
    ("NOT c", "126"),
    ("TRUE", "01234567"),
    ("FALSE", ""),
    ("1 = 1", "01234567"),
    ("a > 1 AND b = 'y'", "2"),
    ("a = 1 OR b = 'y'", "12"),
    ("NOT a = 1", ""),
    ("NOT (a = 1 OR b = 'y')", "3"),
    ("c IS NULL OR a = 1", "013457"),
    ("a = 1 OR b = 'y' AND a = 2", "12"),
    ("(a = 1 OR b = 'y') AND a = 2", "2"),
    ("NOT a = 1 AND b = 'y'", ""),
    ("NOT NOT a = 1", ""),
    ("TAGS = 'T1'", "14"),
    ("TAGS IS NULL", "0357"),
    ("TAGS IN ('T1','T3')", "146"),
    ("TAGS = 'T1' OR a > 5", "134"),
    ("a", ""),
    ("a = b", "0"),
    ("a > -4", "123"),
    ("a = -3.5", "5"),
    ("a > 1e0", "2367"),
    ("a = 1L", "1"),
    ("a = +1", "1"),
    ("a = 0x1", ""),
    ("a + 1 = 2", ""),
    ("1 < a", "23"),
    ("'x' = b", "1"),
    ("2 BETWEEN a AND 10", "12"),
    ("b LIKE 'x%'", ""),
    ("b CONTAINS 'e'", "5"),
    ("b STARTSWITH 'z'", "5"),
    ("b ENDSWITH 'd'", "5"),
    ("b NOT CONTAINS 'e'", "1234"),
    ("b LIKE '%e%'", ""),
    ("a = 1)", "1"),
    ("a b", ""),
    ("$x = 1", ""),
    ("_a = 1", ""),
    ("a-b = 1", ""),
    ("a = 1 -- c", "1"),
    ("/* c */ a = 1", "1"),
    ("NULL", ""),
    ("unknown = 1", ""),
    ("unknown IS NULL", "01234567"),
    ("nosuch <> 1", ""),
    ("b > 1", ""),
    ("a = 1.0", "1"),
    ("a=1", "1"),
    ("A = 1", ""),
    ("a = 9223372036854775807", ""),
    ("c = TRUE AND a = 1", "1"),
    ("c = 1", ""),
    ("a BETWEEN 1 AND b", ""),
    ("a IN ('1') OR b IN ('y')", "12"),
    ("a IS NULL AND b IS NULL", "0"),
    ("a = 1 and b = 'x'", "1"),
    ("a not in ('1')", "234567"),
    ("a = 1 XOR b = 1", "1"),
    ("a = 1 OR TAGS = 'T1'", "1"),
    ("a <> 1 OR TAGS = 'T1'", "123"),
    ("NOT (a = 1)", "23"),
    ("(NOT a) = TRUE", "1234567"),
    ("(NOT a) = 1", ""),
    ("a < b", ""),
    ("a > b OR TAGS = 'T1'", ""),
    ("a < d", "5"),
    ("a AND TRUE", ""),
    ("c AND TRUE", ""),
    ("c OR TRUE", "01234567"),
    ("NOT (c)", "126"),
    ("-a = 1", ""),
    ("a = -b", "0"),
    ("a = 1 = TRUE", "1"),
    ("TRUE = (a = 1)", "1"),
    ("a IS NOT NULL = TRUE", "1234567"),
    ("a BETWEEN 1.5 AND 10", "23"),
    ("a BETWEEN 1 AND 2.5", "12"),
    ("1 BETWEEN 0 AND 2", "01234567"),
    ("1 > 2", ""),
    ("'a' = 'a'", "01234567"),
    ("1 = 'x'", ""),
    ("1 = '1'", "01234567"),
    ("1 IS NULL", ""),
    ("'x' IS NOT NULL", "01234567"),
    ("NULL IS NULL", "01234567"),
    ("(a) = 1", "1"),
    ("((((a = 1))))", "1"),
    ("b CONTAINS ''", ""),
    ("'xyz' CONTAINS 'y'", "01234567"),
    ("a = 1.", "1"),
    ("a = .5", ""),
    ("a = 1e", "1"),
    ("a = 1E2", ""),
    ("a = 01", ""),
    ("a = 010", ""),
    ("a = 'x' 'y'", ""),
    ("a = 1 b ; c", "1"),
    ("TAGS <> 'T1'", "26"),
    ("tags = 'T1'", ""),
    ("b = ''", ""),
    ("b IS NULL AND a IS NOT NULL", "67"),
    ("a <> ''", "1234567"),
    ("a = TRUE", ""),
    ("a <> TRUE", "1234567"),
    ("a = --1", "1"),
    ("a = -'x'", "0"),
    ("NOT TRUE", ""),
    ("NOT NULL", ""),
    ("NULL OR TRUE", "01234567"),
    ("NULL AND FALSE", ""),
    ("a = 1 OR a = 'abc'", "1"),
    ("a = 'abc' OR a = 1", "14"),
    ("a > 1 OR a = 'abc'", "23"),
    ("a > 1.0 OR a = 'abc'", "2367"),
    ("(a = 1) IS NULL", "0"),
    ("a IS NULL IS NULL", ""),
    ("a NOT IN ('1') AND b <> 'zed'", "234"),
    ("a = 2 AND NOT (b = 'x')", "2"),
    ("NOT c = TRUE", "126"),
    ("NOT (c = TRUE)", "2"),
    ("c <> FALSE", "16"),
    ("a NOT BETWEEN 1 AND 2 OR TAGS = 'T1'", "13"),
    ("b STARTSWITH 'x' OR b ENDSWITH 'y'", "12"),
    ("b NOT STARTSWITH 'x'", "2345"),
    ("1.0 = 1", "01234567"),
    ("a = 2.50", ""),
    ("a >= -4.0", "123567"),
    ("a > b", ""),
];

/// What the real server cannot read.
const MEASURED_UNREADABLE: &[&str] = &[
    "a != 2",
    "a == 2",
    "b > 'x'",
    "b BETWEEN 'a' AND 'z'",
    "a BETWEEN 5 AND 1",
    "a IN (1,2)",
    "b IN ()",
    "1",
    "'x'",
    "a * 2 = 4",
    "   ",
    "*",
    "a =",
    "a = 1 AND",
    "(a = 1",
    "a == = 1",
    "a = \"1\"",
    "a = 'x",
    "a IS",
    "IS NULL",
    "a.b = 1",
    "a = NULL",
    "a > 'x'",
    "a > '1'",
    "a = 9223372036854775808",
    "a = 99999999999999999999",
    "a > 1 > 0",
    "a BETWEEN '1' AND '2'",
    "`a` = 1",
    "is = 1",
    "and = 1",
    "not a in ('1')",
    "a = 1;",
    "a % 2 = 0",
    "'a' < 'b'",
    "'x' IN ('x')",
    "a CONTAINS b",
    "a CONTAINS 1",
    "a = 1 OR OR",
    "NOT 1",
];

fn wanted(condition: &str) -> Result<String, Refusal> {
    let mut bench = Bench::new();
    for (id, properties, tag) in MESSAGES {
        let properties = properties
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        let message = Draft {
            properties: properties.collect(),
            tag: tag.map(str::to_owned),
            ..draft("t", id)
        };
        bench.send(message).unwrap();
    }
    let ask = Ask {
        filter: Some((FilterType::Sql, condition.to_owned())),
        ..bench.ask("a")
    };
    let got = bench.receive_as(ask)?;
    Ok(got.iter().map(|d| d.message.draft.id.as_str()).collect())
}

#[test]
fn conditions_want_what_they_want_on_the_real_server() {
    let wrong: Vec<_> = MEASURED
        .iter()
        .map(|(condition, ids)| (condition, *ids, wanted(condition)))
        .filter(|(_, ids, got)| got.as_deref() != Ok(ids))
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn what_the_real_server_cannot_read_is_refused_with_its_code() {
    let read = |condition: &&&str| {
        wanted(condition).map_err(|refusal| refusal.code) != Err(Code::InternalServerError)
    };
    let wrong: Vec<_> = MEASURED_UNREADABLE.iter().filter(read).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn a_condition_is_bounded_in_size_and_depth() {
    let deep = ["(", "NOT ", "-", "a = ", "a IS NULL = ", "a < "].map(|part| part.repeat(1000));
    let long = format!("a = '{}'", "x".repeat(20_000));
    let unclosed = "(".repeat(10_000);
    for condition in deep.iter().chain([&long, &unclosed]) {
        let refusal = wanted(condition).unwrap_err();
        assert_eq!(refusal.code, Code::InternalServerError);
        assert!(refusal.message.len() < 200, "{}", refusal.message);
    }
    let wide = vec!["a = '1'"; 1000].join(" OR ");
    assert_eq!(wanted(&wide).unwrap(), "1");
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 10_000,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn no_condition_makes_the_reader_or_the_judge_panic(words in words()) {
        if let Ok(filter) = Filter::parse(FilterType::Sql, &words.join(" ")) {
            let message = Draft { tag: Some("T".to_owned()), ..draft("t", "m") };
            filter.wants(&Stored::new(message, 0, 0, Timestamp::default()));
        }
    }
}

/// Words of conditions, and what is none.
fn words() -> impl Strategy<Value = Vec<&'static str>> {
    let words = [
        "k",
        "TAGS",
        "(",
        ")",
        "NOT",
        "AND",
        "OR",
        "=",
        "<>",
        "<",
        ">=",
        "BETWEEN",
        "IN",
        "IS",
        "NULL",
        "TRUE",
        "'v'",
        "''",
        "'",
        "1",
        "-",
        "+",
        "2.5",
        ".5",
        "9223372036854775808",
        "1e9",
        ",",
        "CONTAINS",
        "/*",
        "*/",
        "--",
        "\n",
        "\u{e9}",
        ";",
        "0",
        "$",
        "''''",
        "1L",
    ];
    proptest::collection::vec(proptest::sample::select(words.to_vec()), 0..24)
}
