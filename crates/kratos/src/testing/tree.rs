//! Spans as a tree of text, and a way down it.

use std::fmt::Write as _;

use super::RecordedSpan;

/// Finds spans of these names, each the parent of the next.
///
/// # Errors
///
/// There is no such way: where it ends, and the [`tree`] of all spans.
pub fn follow(spans: &[RecordedSpan], names: &[&str]) -> Result<Vec<RecordedSpan>, String> {
    let mut ways: Vec<Vec<&RecordedSpan>> = Vec::new();
    for (depth, name) in names.iter().enumerate() {
        let mut longer = Vec::new();
        for span in spans.iter().filter(|span| span.name == *name) {
            if depth == 0 {
                longer.push(vec![span]);
            }
            let above = ways.iter().filter(|way| is_child(span, way[depth - 1]));
            longer.extend(above.map(|way| [way.as_slice(), &[span]].concat()));
        }
        if longer.is_empty() {
            let what = match depth.checked_sub(1) {
                Some(above) => format!("no {name:?} below {:?}", names[above]),
                None => format!("no {name:?}"),
            };
            let (wanted, seen) = (names.join(" => "), tree(spans));
            return Err(format!("{what}\nwanted: {wanted}\nseen:\n{seen}"));
        }
        ways = longer;
    }
    let way = ways.into_iter().next().unwrap_or_default();
    Ok(way.into_iter().cloned().collect())
}

/// All spans, each below its parent, in the order of their start.
///
/// A span whose parent is not among them says so: it began elsewhere, or the parent has not ended.
#[must_use]
pub fn tree(spans: &[RecordedSpan]) -> String {
    let mut spans: Vec<_> = spans.iter().collect();
    spans.sort_by_key(|span| span.start);
    let mut text = String::new();
    for root in &spans {
        let orphan = match &root.parent_id {
            None => "",
            Some(_) if spans.iter().any(|span| is_child(root, span)) => continue,
            Some(_) => ", its parent is not here",
        };
        line(&mut text, root, orphan);
        children(&mut text, root, &spans, "");
    }
    if text.is_empty() {
        text.push_str("(no span)\n");
    }
    text
}

fn children(text: &mut String, parent: &RecordedSpan, spans: &[&RecordedSpan], indent: &str) {
    // Ids are random, but whoever makes a circle of them must not hang a test.
    if indent.len() > 400 {
        return;
    }
    let below: Vec<_> = spans.iter().filter(|span| is_child(span, parent)).collect();
    for (at, child) in below.iter().enumerate() {
        let last = at + 1 == below.len();
        let (branch, beside) = if last {
            ("└─ ", "   ")
        } else {
            ("├─ ", "│  ")
        };
        text.push_str(indent);
        text.push_str(branch);
        line(text, child, "");
        children(text, child, spans, &format!("{indent}{beside}"));
    }
}

fn line(text: &mut String, span: &RecordedSpan, remark: &str) {
    let took = span.end.duration_since(span.start).unwrap_or_default();
    let (name, kind, micros) = (&span.name, span.kind, took.as_micros());
    let (ms, rest) = (micros / 1_000, micros % 1_000 / 100);
    let failed = if span.is_error { ", error" } else { "" };
    // Nothing fails that writes to a string.
    let _written = writeln!(text, "{name} ({kind}, {ms}.{rest} ms{failed}{remark})");
}

fn is_child(span: &RecordedSpan, parent: &RecordedSpan) -> bool {
    span.trace_id == parent.trace_id && span.parent_id.as_ref() == Some(&parent.span_id)
}
