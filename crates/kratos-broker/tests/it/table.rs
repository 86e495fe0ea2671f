//! The README's table of laws.

use std::collections::BTreeSet;

use kratos_broker::testing::LAWS;

const README: &str = include_str!("../../README.md");

/// The cells of a table's row.
fn cells(line: &str) -> Option<Vec<&str>> {
    let line = line.strip_prefix("| ")?.strip_suffix(" |")?;
    Some(line.split(" | ").collect())
}

/// The rows of the table of laws.
fn rows() -> Vec<Vec<&'static str>> {
    let (_, after) = README.split_once("## Laws by driver").expect("the table");
    let lines = after.lines().filter_map(cells);
    let is_law = |row: &Vec<&str>| row.len() == 4 && row[0].starts_with('`');
    lines.filter(is_law).collect()
}

#[test]
fn the_table_and_the_list_of_laws_agree() {
    let rows = rows();
    let named: BTreeSet<_> = rows.iter().map(|row| row[0].trim_matches('`')).collect();
    let laws: BTreeSet<_> = LAWS.iter().copied().collect();
    assert_eq!(named, laws);
    assert_eq!(rows.len(), LAWS.len(), "each law once");
    for row in rows {
        for cell in &row[1..] {
            let known = ["passes", "refuses: ", "not tried: "];
            assert!(known.iter().any(|k| cell.starts_with(k)), "{row:?}");
        }
    }
}

/// Every law of every series is in one of the two tables.
#[test]
fn no_law_of_a_series_is_forgotten() {
    let (_, tables) = README.split_once("## Laws by driver").expect("the tables");
    let first = tables.lines().filter_map(cells).map(|row| row[0]);
    let names: Vec<String> = first.map(str::to_lowercase).collect();
    let series = [
        ('d', 21),
        ('o', 5),
        ('r', 8),
        ('l', 3),
        ('s', 14),
        ('t', 10),
        ('a', 2),
        ('h', 1),
        ('m', 1),
    ];
    for (letter, last) in series {
        for number in 1..=last {
            let law = format!("{letter}{number}");
            let has = |name: &String| {
                let mut words = name.split(|c: char| !c.is_ascii_alphanumeric());
                words.any(|word| word == law)
            };
            assert!(names.iter().any(has), "{law} is in no table");
        }
    }
}
