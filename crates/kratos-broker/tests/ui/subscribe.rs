//! What `subscribe` and `subscribe_batch` say of functions that do not fit.

use kratos_broker::{Batch, BatchSettings, Bytes, Json, MessageId, Router, Subscription};

async fn wrong_argument(_: String) {}

async fn error_without_a_policy(_: Bytes) -> Result<(), String> {
    Ok(())
}

async fn of_batches(_: Batch<Json<u8>>) {}

async fn of_one_message(_: Bytes) {}

async fn of_both(_: MessageId, _: Batch<Bytes>) {}

fn main() {
    let (s, b) = (Subscription::new("orders", "billing"), BatchSettings::new(9));
    let _: Router = Router::new().subscribe("orders", "billing", wrong_argument);
    let _: Router = Router::new().subscribe("orders", "billing", error_without_a_policy);
    let _: Router = Router::new().subscribe("orders", "billing", of_batches);
    let _: Router = Router::new().subscribe_batch(s.clone(), b.clone(), of_one_message);
    let _: Router = Router::new().subscribe_batch(s, b, of_both);
}
