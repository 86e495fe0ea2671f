//! Async admin client for Apache RocketMQ, over its remoting protocol: what gRPC does not offer.
