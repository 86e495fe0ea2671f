//! Columns for people, that scripts can cut as well.

use std::{
    fmt::Display,
    io::Write as _,
    time::{Duration, SystemTime},
};

/// Collects rows and writes them once their widths are known; writes nothing without a place.
pub(crate) struct Table<'a> {
    out: Option<&'a mut Vec<u8>>,
    rows: Vec<Vec<String>>,
}

impl<'a> Table<'a> {
    pub(crate) fn new(out: Option<&'a mut Vec<u8>>) -> Self {
        Self {
            out,
            rows: Vec::new(),
        }
    }

    /// Begins another table.
    pub(crate) fn head(&mut self, names: &[&str]) {
        self.flush();
        self.rows
            .push(names.iter().map(|it| (*it).to_owned()).collect());
    }

    pub(crate) fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.into());
    }

    /// A line between tables.
    pub(crate) fn line(&mut self, line: impl Display) {
        self.flush();
        self.write(&line.to_string());
    }

    fn flush(&mut self) {
        let rows = std::mem::take(&mut self.rows);
        let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            let cells = rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<_> = (0..columns).map(width).collect();
        for row in &rows {
            let cells = row.iter().zip(&widths);
            let line: Vec<_> = cells
                .map(|(cell, width)| format!("{cell:width$}"))
                .collect();
            self.write(line.join("  ").trim_end());
        }
    }

    fn write(&mut self, line: &str) {
        if let Some(out) = &mut self.out {
            // Writing to memory does not fail.
            let _ = writeln!(out, "{line}");
        }
    }
}

impl Drop for Table<'_> {
    fn drop(&mut self) {
        self.flush();
    }
}

/// How long ago that was, to the second.
pub(crate) fn ago(time: Option<SystemTime>) -> String {
    let Some(time) = time else {
        return "never".to_owned();
    };
    let elapsed = SystemTime::now().duration_since(time).unwrap_or_default();
    let seconds = Duration::from_secs(elapsed.as_secs());
    format!("{} ago", humantime::format_duration(seconds))
}
