use kratos_broker::{Router, State};

#[derive(Clone)]
struct Store;

async fn save(State(_): State<Store>) {}

fn main() {
    let _: Router = Router::new().subscribe("orders", "billing", save);
}
