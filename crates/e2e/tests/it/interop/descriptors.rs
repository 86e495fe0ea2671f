//! Our description of the protocol beside the one inside the official client, field by field.

use std::{collections::BTreeMap, path::Path};

use prost::Message;
use prost_types::{
    DescriptorProto, EnumDescriptorProto, FileDescriptorSet, field_descriptor_proto::Label,
};

use super::peer;

const PACKAGE: &str = "apache.rocketmq.v2";
/// What only the official client has: services that no released server implements.
const NOT_OURS: [&str; 1] = ["apache.rocketmq.v2.Admin"];

/// What is newer than the client's release.
const NEWER: [&str; 3] = [
    "apache.rocketmq.v2.Code.INVALID_CLIENT_PROPERTIES",
    "apache.rocketmq.v2.Settings.ClientPropertiesEntry.",
    "apache.rocketmq.v2.Settings.client_properties",
];

/// What is compared: a full name, and what is said of it.
type Facts = BTreeMap<String, String>;

#[tokio::test]
async fn our_descriptors_are_those_of_the_official_python_client() {
    let theirs = FileDescriptorSet::decode(&*peer::descriptors().await).unwrap();
    let protos = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../proto");
    let ours = protox::compile(["apache/rocketmq/v2/service.proto"], [protos]).unwrap();
    let (ours, theirs) = (facts(&ours), facts(&theirs));
    assert!(
        ours.len() > 300,
        "only {} facts: nothing is compared",
        ours.len()
    );

    let mut differences = Vec::new();
    for (name, fact) in &ours {
        match theirs.get(name) {
            None if NEWER.iter().any(|newer| name.starts_with(newer)) => {}
            None => differences.push(format!("{name}: {fact}, not there")),
            Some(other) if other != fact => {
                differences.push(format!("{name}: {fact}, there {other}"));
            }
            Some(_) => {}
        }
    }
    for (name, fact) in &theirs {
        let known = NOT_OURS.iter().any(|skip| name.starts_with(skip));
        if !known && !ours.contains_key(name) {
            differences.push(format!("{name}: only there, {fact}"));
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

fn facts(set: &FileDescriptorSet) -> Facts {
    let mut facts = Facts::new();
    for file in set.file.iter().filter(|it| it.package() == PACKAGE) {
        for message in &file.message_type {
            describe_message(PACKAGE, message, &mut facts);
        }
        for each in &file.enum_type {
            describe_enum(PACKAGE, each, &mut facts);
        }
        for service in &file.service {
            for method in &service.method {
                let stream = |it: bool| if it { "stream " } else { "" };
                let fact = format!(
                    "rpc({}{}) returns({}{})",
                    stream(method.client_streaming()),
                    method.input_type(),
                    stream(method.server_streaming()),
                    method.output_type(),
                );
                facts.insert(
                    format!("{PACKAGE}.{}.{}", service.name(), method.name()),
                    fact,
                );
            }
        }
    }
    facts
}

fn describe_message(scope: &str, message: &DescriptorProto, facts: &mut Facts) {
    let name = format!("{scope}.{}", message.name());
    for field in &message.field {
        let oneof = field.oneof_index.map(|at| {
            let at = usize::try_from(at).unwrap();
            message.oneof_decl[at].name()
        });
        let fact = format!(
            "field {} {:?} {:?} {} optional={} oneof={oneof:?}",
            field.number(),
            Label::try_from(field.label.unwrap_or_default()),
            field.r#type(),
            field.type_name(),
            field.proto3_optional(),
        );
        facts.insert(format!("{name}.{}", field.name()), fact);
    }
    for nested in &message.nested_type {
        describe_message(&name, nested, facts);
    }
    for each in &message.enum_type {
        describe_enum(&name, each, facts);
    }
}

fn describe_enum(scope: &str, each: &EnumDescriptorProto, facts: &mut Facts) {
    for value in &each.value {
        let name = format!("{scope}.{}.{}", each.name(), value.name());
        facts.insert(name, format!("value {}", value.number()));
    }
}
