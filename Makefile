# Two commands do everything on a machine with Rust: `make run` and `make test`.
# The real server (rocketmq-up, e2e) wants Java 17, Maven and Python besides.

.PHONY: run test lint doc browser laws proto rocketmq-up rocketmq-down e2e record chaos bench bench-baseline bench-real help

# One service: HTTP on 127.0.0.1:8000, gRPC on 127.0.0.1:9000, the broker embedded. Ctrl-C drains.
# The binary takes make's place, so a signal reaches it and its exit code is make's.
run:
	@cargo build -p quickstart
	@exec "$${CARGO_TARGET_DIR:-target}/debug/quickstart"

test: ## everything that needs no network service, no Java and no protoc; its tests wait more than they work
	RUST_TEST_THREADS=$${RUST_TEST_THREADS:-4} cargo test

lint: ## formatting, clippy, docs, crate directions, features one by one
	bash .ci/lint

doc:
	cargo doc --no-deps

browser: ## the admin server's pages in a headless Chromium; screenshots in target/screenshots
	bash .ci/browser

laws: ## the laws of drivers on the memory driver, at full size, optimised
	cargo test --release -p kratos-broker --test it conformance::

proto: ## writes the generated code again, without protoc
	PROTO_WRITE=1 cargo test -q -p rocketmq-proto -p report-proto generated

rocketmq-up: ## a real Apache RocketMQ in .rocketmq, with the examples' topics and group
	bash deploy/rocketmq/up.sh

rocketmq-down:
	bash deploy/rocketmq/down.sh

e2e: ## everything that is tried against a real Apache RocketMQ, started on ports of its own
	bash .ci/e2e

chaos: ## ten minutes of SIGKILL, dead connections and restarts on a real Apache RocketMQ
	bash .ci/chaos 600 --real

record: ## asks a real Apache RocketMQ again what the dev broker is compared with
	bash .ci/record

bench: ## what the engine costs per message; with ROCKETMQ_ENDPOINTS set, bench-real too
	bash .ci/bench
	cargo bench -p bench --bench dispatch
	@if [ -n "$$ROCKETMQ_ENDPOINTS" ]; then cargo bench -p bench --bench real; \
	else echo "end to end: make rocketmq-up; ROCKETMQ_ENDPOINTS=127.0.0.1:8081 make bench"; fi

bench-baseline: ## writes what the engine costs now as the new baseline
	bash .ci/bench --write

bench-real: ## end to end on a running server: floor, client, stack, and the Go client if GO_PEER is set
	cargo bench -p bench --bench real -- $(WHAT)

help:
	@grep -E '^[a-z0-9-]+:' Makefile
