//! A router, and a server, whose handlers miss their state.

use kratos_broker::{Router, Server, State, memory};

#[derive(Clone)]
struct Store;

async fn save(State(_): State<Store>) {}

fn main() {
    let _: Router = Router::new().subscribe("orders", "billing", save);
    let server = Server::new(memory::Broker::new()).subscribe("orders", "billing", save);
    kratos::App::new().server(server);
}
