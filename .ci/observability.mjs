// What can be said of deploy/observability without starting it: `node observability.mjs FOLDER`, with
// the package yaml in FOLDER/node_modules and promtool on the path. That its metrics exist is a test
// of quickstart's.
import { execFileSync } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";

const [folder] = process.argv.slice(2);
const YAML = createRequire(join(resolve(folder), "package.json"))("yaml");
const PACK = "deploy/observability";
const wrong = [];
const say = (what) => wrong.push(what);

const text = (file) => readFileSync(join(PACK, file), "utf8");
/** Keys twice and other faults are errors. */
const yaml = (file) => YAML.parse(text(file), { strict: true, uniqueKeys: true });
const promtool = (...args) => {
  try {
    return execFileSync("promtool", args, { encoding: "utf8", stdio: ["ignore", "pipe", "pipe"] });
  } catch (error) {
    say(`promtool ${args.join(" ")}: ${error.stdout ?? ""}${error.stderr ?? error.message}`);
  }
};
const unknownKeys = (what, object, known) => {
  for (const key of Object.keys(object ?? {})) if (!known.includes(key)) say(`${what}: nobody knows the key ${key}`);
};

// Compose: images have versions, ports are loopback's, whatever is mounted or waited for is there.
const compose = yaml("compose.yaml");
const services = compose.services;
unknownKeys("compose.yaml", compose, ["name", "services", "volumes"]);
for (const [name, service] of Object.entries(services)) {
  const of = `compose.yaml, ${name}`;
  unknownKeys(of, service, ["image", "command", "environment", "volumes", "ports", "depends_on", "restart"]);
  if (!/:v?\d+\.\d+\.\d+$/.test(service.image)) say(`${of}: ${service.image} names no version`);
  for (const port of service.ports ?? []) if (!/^127\.0\.0\.1:\d+:\d+$/.test(port)) say(`${of}: port ${port} is not only loopback's`);
  for (const other of service.depends_on ?? []) if (!services[other]) say(`${of}: there is no ${other}`);
  for (const volume of service.volumes ?? []) {
    const [from] = volume.split(":");
    const there = from.startsWith("./") ? existsSync(join(PACK, from)) : from in compose.volumes;
    if (!there) say(`${of}: there is no ${from}`);
  }
}
const mounted = (service, path) => {
  for (const volume of services[service].volumes ?? []) {
    const [from, to] = volume.split(":");
    if (path === to || path.startsWith(`${to}/`)) return join(PACK, from, path.slice(to.length));
  }
};
for (const [service, flag] of [["collector", "--config="], ["prometheus", "--config.file="]]) {
  const path = services[service].command.find((arg) => arg.startsWith(flag))?.slice(flag.length);
  if (!path || !existsSync(mounted(service, path) ?? "")) say(`compose.yaml, ${service}: its configuration ${path} is not mounted`);
}
const home = services.grafana.environment.GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH;
if (!existsSync(mounted("grafana", home) ?? "")) say(`compose.yaml, grafana: its home dashboard ${home} is not mounted`);
/** Whether somebody in the pack listens there: `collector:8889`, `http://jaeger:16686`. */
const LISTENS = { "jaeger:4317": 1, "jaeger:16686": 1, "prometheus:9090": 1 };
const listens = (of, address) => {
  if (!LISTENS[address.replace(/^https?:\/\//, "")]) say(`${of}: nobody listens at ${address}`);
};

// The collector: keys that its components know, and pipelines of components that are there.
const collector = yaml("collector.yaml");
unknownKeys("collector.yaml", collector, ["receivers", "processors", "exporters", "service"]);
const KNOWN = {
  otlp: ["protocols"], memory_limiter: ["check_interval", "limit_mib", "spike_limit_mib"], batch: ["timeout", "send_batch_size", "send_batch_max_size"],
  "otlp/jaeger": ["endpoint", "tls"],
  prometheus: ["endpoint", "namespace", "const_labels", "send_timestamps", "metric_expiration", "resource_to_telemetry_conversion", "enable_open_metrics", "add_metric_suffixes", "without_scope_info"],
};
for (const kind of ["receivers", "processors", "exporters"]) {
  for (const [name, settings] of Object.entries(collector[kind])) {
    if (!KNOWN[name]) say(`collector.yaml: nobody knows ${name}`);
    else unknownKeys(`collector.yaml, ${name}`, settings, KNOWN[name]);
    const used = Object.values(collector.service.pipelines).some((pipeline) => pipeline[kind].includes(name));
    if (!used) say(`collector.yaml: no pipeline uses ${name}`);
  }
  for (const [name, pipeline] of Object.entries(collector.service.pipelines)) {
    for (const one of pipeline[kind]) if (!(one in collector[kind])) say(`collector.yaml, ${name}: there is no ${one}`);
  }
}
listens("collector.yaml", collector.exporters["otlp/jaeger"].endpoint);
LISTENS[collector.exporters.prometheus.endpoint.replace("0.0.0.0", "collector")] = 1;
const grpc = collector.receivers.otlp.protocols.grpc.endpoint.split(":")[1];
if (!services.collector.ports.some((port) => port.endsWith(`:${grpc}`))) say(`compose.yaml, collector: port ${grpc} is not open`);

// Prometheus: its own tool reads configuration and rules.
promtool("check", "config", `${PACK}/prometheus/prometheus.yaml`);
for (const job of yaml("prometheus/prometheus.yaml").scrape_configs) {
  for (const { targets } of job.static_configs) targets.forEach((target) => listens("prometheus.yaml", target));
}

// Grafana: datasources that listen, panels that ask one of them something that parses.
const datasources = new Map(yaml("grafana/provisioning/datasources/datasources.yaml").datasources.map((one) => [one.uid, one]));
for (const one of datasources.values()) {
  listens("datasources.yaml", one.url);
  for (const to of one.jsonData?.exemplarTraceIdDestinations ?? []) {
    if (!datasources.has(to.datasourceUid)) say(`datasources.yaml: there is no ${to.datasourceUid}`);
  }
}
for (const { options } of yaml("grafana/provisioning/dashboards/dashboards.yaml").providers) {
  if (!existsSync(mounted("grafana", options.path) ?? "")) say(`dashboards.yaml: ${options.path} is not mounted`);
}
const dashboard = JSON.parse(text("grafana/dashboards/service.json"));
const variables = dashboard.templating.list.map((one) => one.name);
const queries = [];
const ask = (where, datasource, query) => {
  if (!datasources.has(datasource?.uid)) say(`${where}: there is no datasource ${JSON.stringify(datasource)}`);
  for (const [, name] of query.matchAll(/\$\{?(\w+)/g)) {
    if (!variables.includes(name) && !["__rate_interval", "__range", "__interval"].includes(name)) say(`${where}: there is no variable ${name}`);
  }
  queries.push({ where, query: query.replaceAll(/\$\{?__\w+\}?/g, "5m").replaceAll(/\$\{?\w+\}?/g, "x") });
};
for (const variable of dashboard.templating.list) {
  const query = /^label_values\((.*),\s*\w+\)$/s.exec(variable.definition);
  if (!query || variable.query.query !== variable.definition) say(`variable ${variable.name}: no label_values(query, label), or two`);
  else ask(`variable ${variable.name}`, variable.datasource, query[1]);
}
const ids = new Set();
for (const panel of dashboard.panels.flatMap((panel) => [panel, ...(panel.panels ?? [])])) {
  const where = `panel ${panel.id} ${panel.title}`;
  if (ids.has(panel.id)) say(`${where}: another has this id`);
  ids.add(panel.id);
  if (panel.type === "row") continue;
  if (!panel.targets?.length || !panel.description && panel.type === "stat") say(`${where}: it asks nothing, or does not say what`);
  for (const target of panel.targets ?? []) ask(`${where} ${target.refId}`, target.datasource ?? panel.datasource, target.expr);
}
// As rules, for there is no other way to have them all parsed.
const scratch = mkdtempSync(join(tmpdir(), "observability-"));
const check = (name, list) => {
  const file = join(scratch, name);
  const rules = list.map(({ query }, n) => ({ record: `query:${n}`, expr: query }));
  writeFileSync(file, JSON.stringify({ groups: [{ name: "dashboard", rules }] }));
  return file;
};
promtool("check", "rules", check("dashboard.yaml", queries));
// It can say no.
const before = wrong.length;
const taken = promtool("check", "rules", check("bad.yaml", [{ query: "sum by (a) rate(x[5m]" }]));
wrong.length = before;
if (taken !== undefined) say("promtool takes what is no PromQL");
rmSync(scratch, { recursive: true });

for (const what of wrong) console.error(`observability: ${what}`);
console.log(`deploy/observability: ${Object.keys(services).length} services, ${queries.length} queries, ${wrong.length} errors`);
process.exit(wrong.length === 0 ? 0 : 1);
