//! The checked-in code is what the `.proto` file generates.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{fs, path::Path};

use prost::Message;
use prost_types::{FileDescriptorSet, field_descriptor_proto::Label};

/// `make proto` sets it: write the generated code instead of comparing.
const WRITE: &str = "PROTO_WRITE";

/// For reflection.
const DESCRIPTORS: &str = "report.v1.bin";

fn generate(out: &Path) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../proto");
    let mut fds = protox::compile(["report/v1/report.proto"], [&root]).unwrap();
    // Comments become docs of items that nobody asked to be documented: the .proto has them.
    for file in &mut fds.file {
        file.source_code_info = None;
    }
    let mut builder = tonic_prost_build::configure()
        .out_dir(out)
        .message_attribute(
            ".",
            "#[derive(serde::Serialize, serde::Deserialize, schemars::JsonSchema)]",
        )
        .message_attribute(".", "#[serde(default)]");
    for (path, attribute) in json_attributes(&fds) {
        builder = builder.field_attribute(path, attribute);
    }
    fs::write(out.join(DESCRIPTORS), fds.encode_to_vec()).unwrap();
    builder.compile_fds(fds).unwrap();
}

/// Every field is written under its `json_name` and read under that or its snake_case name.
fn json_attributes(fds: &FileDescriptorSet) -> Vec<(String, String)> {
    let mut attributes = Vec::new();
    for (message, field) in fds
        .file
        .iter()
        .flat_map(|f| &f.message_type)
        .flat_map(|m| m.field.iter().map(move |f| (m, f)))
    {
        let path = format!(".report.v1.{}.{}", message.name(), field.name());
        let camel = camel_case(field.name());
        let aliases = [camel.as_str(), field.name()]
            .into_iter()
            .filter(|name| *name != field.json_name())
            .map(|name| format!(", alias = {name:?}"))
            .collect::<String>();
        attributes.push((
            path.clone(),
            format!("#[serde(rename = {:?}{aliases})]", field.json_name()),
        ));
        if field.proto3_optional() && field.label() == Label::Optional {
            attributes.push((
                path,
                "#[serde(skip_serializing_if = \"Option::is_none\")]".to_owned(),
            ));
        }
    }
    attributes
}

fn camel_case(name: &str) -> String {
    let mut words = name.split('_');
    let first = words.next().unwrap_or_default().to_owned();
    words.fold(first, |mut out, word| {
        let (head, tail) = word.split_at(1);
        out.push_str(&head.to_uppercase());
        out.push_str(tail);
        out
    })
}

#[test]
fn generated_code_is_fresh() {
    let checked_in = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/generated");
    if std::env::var_os(WRITE).is_some() {
        generate(&checked_in);
        return;
    }
    let out = tempfile::tempdir().unwrap();
    generate(out.path());
    for file in ["report.v1.rs", DESCRIPTORS] {
        let (fresh, kept) = (
            fs::read(out.path().join(file)).unwrap(),
            fs::read(checked_in.join(file)).unwrap_or_default(),
        );
        assert!(
            fresh == kept,
            "src/generated/{file} is out of date: run `make proto`"
        );
    }
}
