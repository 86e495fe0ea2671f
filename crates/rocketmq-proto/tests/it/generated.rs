use std::{env, fs, path::Path};

/// Set to anything, it makes the test write the generated code instead of comparing it.
const WRITE: &str = "PROTO_WRITE";
const FILE: &str = "apache.rocketmq.v2.rs";

#[test]
fn generated_code_is_fresh() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let checked_in = root.join("src/generated").join(FILE);
    let fresh = generate(&root.join("../../proto"));

    if env::var_os(WRITE).is_some() {
        fs::write(&checked_in, fresh).unwrap();
        return;
    }
    let found = fs::read_to_string(&checked_in).unwrap_or_default();
    if let Some(line) = first_difference(&found, &fresh) {
        panic!(
            "{} differs from proto/ in line {line}: run `{WRITE}=1 cargo test -p rocketmq-proto`",
            checked_in.display()
        );
    }
}

fn generate(protos: &Path) -> String {
    let files = protox::compile(["apache/rocketmq/v2/service.proto"], [protos]).unwrap();
    let out = tempfile::tempdir().unwrap();
    tonic_prost_build::configure()
        .out_dir(out.path())
        .bytes(".apache.rocketmq.v2.Message.body")
        .build_transport(false)
        .client_mod_attribute("apache.rocketmq.v2", r#"#[cfg(feature = "client")]"#)
        .server_mod_attribute("apache.rocketmq.v2", r#"#[cfg(feature = "server")]"#)
        .emit_rerun_if_changed(false)
        .compile_fds(files)
        .unwrap();
    fs::read_to_string(out.path().join(FILE)).unwrap()
}

/// Line number, from 1, of the first difference.
fn first_difference(a: &str, b: &str) -> Option<usize> {
    if a == b {
        return None;
    }
    let same = a.lines().zip(b.lines()).take_while(|(a, b)| a == b).count();
    Some(same + 1)
}
