//! What `debug_handler` says, and where.

use std::rc::Rc;

use kratos_broker::{
    Batch, BatchOutcome, Bytes, Delivery, HandlerError, Headers, Json, Key, MessageId, State, Tag,
    debug_handler,
};

#[derive(Clone)]
struct App;

#[derive(Clone)]
struct Store;

#[derive(Debug)]
struct NoPolicy;

#[debug_handler]
async fn wrong_argument(_: State<App>, _: Vec<u8>) {}

#[debug_handler]
async fn wrong_body(_: Json<NoPolicy>) {}

#[debug_handler]
async fn not_a_part_of_the_state(_: State<App>, _: State<Store>) {}

#[debug_handler(state = App)]
async fn not_a_part_of_the_named_state(_: State<Store>) {}

#[debug_handler]
async fn error_without_a_policy(_: Bytes) -> Result<(), NoPolicy> {
    Ok(())
}

#[debug_handler]
async fn text_as_an_error(_: Bytes) -> Result<(), String> {
    Ok(())
}

#[debug_handler]
async fn wrong_return_type(_: Bytes) -> u8 {
    0
}

#[debug_handler]
async fn outcome_of_one_message(_: Bytes) -> BatchOutcome {
    BatchOutcome::new()
}

#[debug_handler]
async fn not_send(_: Bytes) {
    let held = Rc::new(0);
    std::future::ready(()).await;
    drop(held);
}

#[debug_handler]
async fn batch_with_the_key_of_one(_: Key, _: Batch<Bytes>) {}

#[debug_handler]
async fn batch_of_what_is_no_extractor(_: State<App>, _: Batch<String>) {}

#[debug_handler]
async fn batch_in_front(_: Batch<Bytes>, _: State<App>) {}

#[debug_handler]
async fn batch_error_without_a_policy(_: Batch<Bytes>) -> Result<BatchOutcome<String>, NoPolicy> {
    Ok(BatchOutcome::new())
}

#[debug_handler]
fn not_async(_: Bytes) {}

#[debug_handler]
async fn which_type<E: HandlerError>(_: Bytes) -> Result<(), E> {
    Ok(())
}

#[debug_handler]
#[rustfmt::skip]
async fn too_many(_: Bytes, _: Headers, _: Key, _: Tag, _: MessageId, _: Delivery, _: Bytes, _: Bytes, _: Key) {}

#[debug_handler(store = App)]
async fn wrong_option(_: Bytes) {}

#[debug_handler]
async fn fine(_: State<App>, _: Json<u8>) -> Result<(), kratos_broker::AnyError> {
    Ok(())
}

fn main() {}
