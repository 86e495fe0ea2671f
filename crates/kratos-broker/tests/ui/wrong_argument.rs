use kratos_broker::Router;

async fn save(_: String) {}

fn main() {
    let _: Router = Router::new().subscribe("orders", "billing", save);
}
