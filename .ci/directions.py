#!/usr/bin/env python3
"""The directions between crates: who may depend on which of ours, and on what never.

Only normal and build dependencies count; a test may use anything.
"""
import json
import subprocess
import sys

# package: (ours it may name, packages that must not be anywhere below it)
BROKERS = {"rocketmq-admin", "rocketmq-proto", "rocketmq-grpc", "rocketmq-devbroker", "kratos-rocketmq"}
KRATOS = {"kratos-rs", "kratos-broker", "kratos-rocketmq"}
RULES = {
    "kratos-rs": (set(), BROKERS | {"kratos-broker"}),
    "kratos-broker": ({"kratos-rs", "kratos-broker-macros"}, BROKERS | {"axum", "tonic"}),
    "kratos-broker-macros": (set(), KRATOS | BROKERS | {"tokio"}),
    "rocketmq-proto": (set(), KRATOS),
    "rocketmq-admin": (set(), KRATOS | BROKERS - {"rocketmq-admin"} | {"tonic"}),
    "rocketmq-grpc": ({"rocketmq-proto"}, KRATOS | {"rocketmq-devbroker"}),
    "rocketmq-devbroker": ({"rocketmq-proto"}, KRATOS | {"rocketmq-grpc"}),
    "kratos-rocketmq": (
        {"kratos-rs", "kratos-broker", "rocketmq-admin", "rocketmq-grpc", "rocketmq-devbroker"},
        set(),
    ),
    "kratos-sqlx": ({"kratos-rs", "kratos-broker"}, BROKERS | {"axum", "tonic"}),
}
# The lifecycle alone must stay light.
NEVER_WITHOUT_FEATURES = {
    "kratos-rs": {"axum", "tonic", "hyper", "figment", "opentelemetry_sdk"},
    "rocketmq-admin": {"clap"},
}
# Only kratos::telemetry knows the SDK.
NEVER_DIRECT = {"kratos-rocketmq": {"axum"}, "rocketmq-grpc": {"opentelemetry_sdk"}}


def cargo(*args):
    return subprocess.run(["cargo", *args], check=True, capture_output=True, text=True).stdout


def tree(package, *flags):
    lines = cargo("tree", "-p", package, "-e", "normal,build", "--prefix", "none", *flags)
    return {line.split()[0] for line in lines.splitlines() if line.strip()}


def main():
    wrong = []
    packages = {p["name"]: p for p in json.loads(
        cargo("metadata", "--format-version", "1", "--no-deps"))["packages"]}
    for missing in RULES.keys() - packages.keys():
        wrong.append(f"{missing}: no such package; mend .ci/directions.py")
    ours = set(packages)
    for package, (may, never) in RULES.items():
        direct = {d["name"] for d in packages[package]["dependencies"] if d["kind"] != "dev"}
        for name in sorted((direct & ours) - may):
            wrong.append(f"{package} may not depend on {name}")
        for name in sorted(direct & NEVER_DIRECT.get(package, set())):
            wrong.append(f"{package} may not depend on {name}")
        below = tree(package, "--all-features")
        for name in sorted(never & below):
            wrong.append(f"{package} pulls in {name}: cargo tree -p {package} -i {name}")
    for package, never in NEVER_WITHOUT_FEATURES.items():
        for name in sorted(never & tree(package, "--no-default-features")):
            wrong.append(f"{package} without features pulls in {name}")
    for line in wrong:
        print(f"directions: {line}", file=sys.stderr)
    sys.exit(1 if wrong else 0)


main()
