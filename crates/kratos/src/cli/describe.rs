//! `describe`: what the App consists of.

use std::{fmt::Write as _, io::Write};

use super::unwritten;
use crate::{AppDescription, Result};

pub(super) fn print(described: &AppDescription, out: &mut impl Write) -> Result<()> {
    out.write_all(text(described).as_bytes()).map_err(unwritten)
}

fn text(described: &AppDescription) -> String {
    let AppDescription {
        info,
        servers,
        resources,
        ..
    } = described;
    let mut text = format!("{} {}\n", info.name(), info.version());
    for (name, description) in servers {
        let kind = description.kind();
        let kind = match kind.is_empty() || kind == name {
            true => String::new(),
            false => format!(" ({kind})"),
        };
        // Writing to a string cannot fail.
        let _ok = writeln!(text, "server {name}{kind}");
        for entry in description.entries() {
            let _ok = writeln!(text, "  {entry}");
        }
    }
    for (name, _) in resources {
        let _ok = writeln!(text, "resource {name}");
    }
    for name in described.documents() {
        let _ok = writeln!(text, "document {name}");
    }
    text
}
