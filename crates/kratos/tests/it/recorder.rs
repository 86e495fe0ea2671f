//! What a test of a service sees of its spans.

use kratos::{
    assert_trace,
    testing::{Recorder, Spans, follow, tree},
};
use tracing::info_span;

fn order() {
    info_span!("post").in_scope(|| {
        info_span!("send", otel.name = "send orders", otel.kind = "producer").in_scope(|| {
            info_span!("process", otel.status_code = "ERROR").in_scope(|| {});
        });
        info_span!("reply").in_scope(|| {});
    });
}

#[test]
fn finds_a_way_down_the_spans() {
    let recorder = Recorder::of_thread();
    order();
    let way = assert_trace!(recorder, "post" => "send orders" => "process");
    assert_eq!(way.len(), 3);
    assert_eq!((way[1].kind, way[2].is_error), ("PRODUCER", true));
    assert_eq!(way[2].parent_id.as_ref(), Some(&way[1].span_id));
    assert_trace!(recorder.spans(), "send orders" => String::from("process"));
}

#[test]
fn an_error_says_where_the_way_ends_and_prints_the_tree() {
    let recorder = Recorder::of_thread();
    order();
    let missing = follow(&recorder.spans(), &["post", "process"]).unwrap_err();
    assert!(
        missing.starts_with("no \"process\" below \"post\"\n"),
        "{missing}"
    );
    let lines: Vec<&str> = missing.lines().skip(3).collect();
    for (line, begin) in lines.iter().zip([
        "post (INTERNAL, ",
        "├─ send orders (PRODUCER, ",
        "│  └─ process (INTERNAL, ",
        "└─ reply (INTERNAL, ",
    ]) {
        assert!(line.starts_with(begin), "{missing}");
    }
    assert!(lines[2].contains("error"), "{missing}");
    let below = tree(&recorder.spans()[..1]);
    assert!(below.contains("its parent is not here"), "{below}");
    assert!(follow(&[], &["post"]).unwrap_err().contains("(no span)"));
}

#[test]
fn the_spans_of_two_traces_are_no_way() {
    let recorder = Recorder::of_thread();
    info_span!("a").in_scope(|| {});
    info_span!("b").in_scope(|| {});
    assert!(follow(&recorder.spans(), &["a", "b"]).is_err());
    recorder.clear();
    assert!(recorder.spans().is_empty());
}

#[test]
fn a_place_that_another_thread_has_come_to_first_is_recorded() {
    fn place() {
        info_span!("place").in_scope(|| {});
    }
    let recorder = Recorder::of_thread();
    std::thread::spawn(place).join().unwrap();
    place();
    assert_eq!(recorder.spans().len(), 1);
}
