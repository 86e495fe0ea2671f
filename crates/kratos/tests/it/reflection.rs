//! Reflection of the gRPC server, asked by a client.

use std::time::Duration;

use futures_util::stream;
use kratos::{Server as _, grpc};
use prost::Message;
use prost_types::{
    FileDescriptorProto, FileDescriptorSet, MethodDescriptorProto, ServiceDescriptorProto,
};
use tokio::time::{Instant, timeout};
use tonic::{Code, Status, transport::Channel};
use tonic_reflection::pb::{v1, v1alpha};
use v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
};

use crate::{
    servers::{Echo, grpc_server, run},
    support::{app, chain},
};

/// What a build would write for `test.Echo`.
fn descriptors() -> Vec<u8> {
    let method = MethodDescriptorProto {
        name: Some("Name".to_owned()),
        ..Default::default()
    };
    let service = ServiceDescriptorProto {
        name: Some("Echo".to_owned()),
        method: vec![method],
        ..Default::default()
    };
    let file = FileDescriptorProto {
        name: Some("test.proto".to_owned()),
        package: Some("test".to_owned()),
        service: vec![service],
        ..Default::default()
    };
    FileDescriptorSet { file: vec![file] }.encode_to_vec()
}

fn request(asked: MessageRequest) -> ServerReflectionRequest {
    ServerReflectionRequest {
        host: String::new(),
        message_request: Some(asked),
    }
}

async fn ask(channel: Channel, asked: MessageRequest) -> Result<MessageResponse, Status> {
    let mut client = ServerReflectionClient::new(channel);
    let answers = client.server_reflection_info(stream::iter([request(asked)]));
    let answer = answers.await?.into_inner().message().await?;
    Ok(answer.unwrap().message_response.unwrap())
}

#[tokio::test]
async fn a_client_finds_services_and_their_descriptors() {
    let running = run(app().server(grpc_server().reflection([descriptors()]))).await;
    let channel = running.channel().await;
    let listed = ask(channel.clone(), MessageRequest::ListServices(String::new())).await;
    let MessageResponse::ListServicesResponse(listed) = listed.unwrap() else {
        panic!("no list")
    };
    let names: Vec<_> = listed.service.into_iter().map(|it| it.name).collect();
    let expected = [
        "test.Echo",
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
        "grpc.reflection.v1alpha.ServerReflection",
    ];
    assert_eq!(names, expected);
    for name in ["test.Echo.Name", "grpc.health.v1.HealthCheckRequest"] {
        let asked = MessageRequest::FileContainingSymbol(name.to_owned());
        let MessageResponse::FileDescriptorResponse(found) =
            ask(channel.clone(), asked).await.unwrap()
        else {
            panic!("no descriptor of {name}")
        };
        let file = FileDescriptorProto::decode(&*found.file_descriptor_proto[0]).unwrap();
        assert!(
            name.starts_with(file.package()),
            "{name} is in {}",
            file.package()
        );
    }
    let unknown = MessageRequest::FileContainingSymbol("test.Nothing".to_owned());
    assert_eq!(
        ask(channel.clone(), unknown).await.unwrap_err().code(),
        Code::NotFound
    );

    // Older tools.
    let asked = v1alpha::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(
            v1alpha::server_reflection_request::MessageRequest::ListServices(String::new()),
        ),
    };
    let mut older = v1alpha::server_reflection_client::ServerReflectionClient::new(channel);
    let answers = older
        .server_reflection_info(stream::iter([asked]))
        .await
        .unwrap();
    assert!(answers.into_inner().message().await.unwrap().is_some());
    running.stop().await.unwrap();
}

#[tokio::test]
async fn there_is_none_unless_asked_for() {
    let running = run(app().server(grpc_server())).await;
    let asked = MessageRequest::ListServices(String::new());
    let refused = ask(running.channel().await, asked).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unimplemented);
    running.stop().await.unwrap();
}

#[tokio::test]
async fn a_stream_that_is_left_open_does_not_hold_the_stop() {
    let server = grpc_server().reflection([descriptors()]);
    let running = run(app().stop_timeout(Duration::from_secs(20)).server(server)).await;
    let mut client = ServerReflectionClient::new(running.channel().await);
    let asked = request(MessageRequest::ListServices(String::new()));
    let open = stream::StreamExt::chain(stream::iter([asked]), stream::pending());
    let mut answers = client
        .server_reflection_info(open)
        .await
        .unwrap()
        .into_inner();
    answers.message().await.unwrap().unwrap();
    let begun = Instant::now();
    let ended = timeout(Duration::from_secs(10), answers.message());
    let (ended, stopped) = tokio::join!(ended, running.stop());
    stopped.unwrap();
    assert!(ended.expect("it ends").unwrap().is_none(), "and cleanly");
    assert!(
        begun.elapsed() < Duration::from_secs(5),
        "{:?}",
        begun.elapsed()
    );
}

#[tokio::test]
async fn what_is_no_descriptor_set_is_an_error_of_the_start() {
    let server = grpc_server().reflection([&b"syntax = \"proto3\";"[..]]);
    let error = app().server(server).run().await.unwrap_err();
    assert!(
        chain(&error).contains("no set of descriptors"),
        "{}",
        chain(&error)
    );
}

#[test]
fn a_server_says_that_it_reflects() {
    let said = |server: &grpc::Server| {
        let described = server.describe();
        described
            .entries()
            .iter()
            .any(|it| it.name() == "reflection")
    };
    assert!(!said(&grpc_server()));
    assert!(said(
        &grpc_server().add_service(Echo).reflection([descriptors()])
    ));
}
