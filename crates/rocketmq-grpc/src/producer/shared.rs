//! A request that all attempts of a send share: the generated call takes one of its own for each.

use std::sync::Arc;

use http::uri::PathAndQuery;
use prost::Message as _;
use rocketmq_proto::v2 as pb;
use tonic::{
    Request, Response, Status,
    client::Grpc,
    codec::{BufferSettings, Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    transport::Channel,
};

use crate::rpc::MESSAGE_BYTES_MAX;

const SEND_MESSAGE: &str = "/apache.rocketmq.v2.MessagingService/SendMessage";

/// Room for what comes with a body: topic, properties, id.
const BESIDE_BODY_BYTES: usize = 512;

/// Above this the encoder makes room as it goes.
const BUFFER_BYTES_MAX: usize = 64 << 10;

/// Stores messages: the generated call, with a request that is encoded where it is.
pub(super) async fn send_message(
    channel: Channel,
    request: Request<Arc<pb::SendMessageRequest>>,
) -> Result<Response<pb::SendMessageResponse>, Status> {
    let mut grpc = Grpc::new(channel)
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    grpc.ready()
        .await
        .map_err(|error| Status::unknown(format!("service was not ready: {error}")))?;
    let bodies = request.get_ref().messages.iter();
    let bytes = bodies.map(|it| it.body.len() + BESIDE_BODY_BYTES).sum();
    let path = PathAndQuery::from_static(SEND_MESSAGE);
    grpc.unary(request, path, Sends { bytes }).await
}

/// Encodes a request of about so many bytes, and decodes the answer.
#[derive(Debug, Clone, Copy)]
struct Sends {
    bytes: usize,
}

// === impl Sends ===

impl Codec for Sends {
    type Encode = Arc<pb::SendMessageRequest>;
    type Decode = pb::SendMessageResponse;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for Sends {
    type Item = Arc<pb::SendMessageRequest>;
    type Error = Status;

    fn encode(&mut self, request: Self::Item, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        request
            .encode(to)
            .map_err(|error| Status::internal(error.to_string()))
    }

    fn buffer_settings(&self) -> BufferSettings {
        let bytes = self.bytes.min(BUFFER_BYTES_MAX);
        BufferSettings::new(bytes, BUFFER_BYTES_MAX)
    }
}

impl Decoder for Sends {
    type Item = pb::SendMessageResponse;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Self::Item>, Status> {
        pb::SendMessageResponse::decode(from)
            .map(Some)
            .map_err(|error| Status::internal(error.to_string()))
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(BESIDE_BODY_BYTES, BUFFER_BYTES_MAX)
    }
}
