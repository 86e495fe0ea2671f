// Asks the official schemas: `node documents.mjs FOLDER asyncapi|openapi FILE…`, with the packages
// in FOLDER/node_modules. A document must be valid as it is, and AsyncAPI as 3.0.0 and as 3.1.0.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join, resolve } from "node:path";

const [folder, kind, ...files] = process.argv.slice(2);
const require = createRequire(join(resolve(folder), "package.json"));
if (files.length === 0) throw new Error(`no ${kind} documents were written`);

function asyncapi() {
  const Ajv = require("ajv");
  const formats = require("ajv-formats");
  const specs = require("@asyncapi/specs");
  const validators = ["3.0.0", "3.1.0"].map((version) => {
    const ajv = new Ajv({ strict: false, logger: false, unicodeRegExp: false });
    formats(ajv);
    return [version, ajv.compile(specs.schemasWithoutId[version])];
  });
  return async (document) =>
    validators.flatMap(([version, validate]) =>
      validate({ ...document, asyncapi: version }) ? [] : validate.errors.map(
        (e) => `as ${version}: ${e.instancePath}: ${e.message} ${JSON.stringify(e.params)}`));
}

async function openapi() {
  const { Validator } = await import(require.resolve("@seriousme/openapi-schema-validator"));
  return async (document) => {
    const { valid, errors } = await new Validator().validate(document);
    if (valid) return [];
    return Array.isArray(errors)
      ? errors.map((e) => `${e.instancePath}: ${e.message} ${JSON.stringify(e.params)}`)
      : [errors];
  };
}

const check = kind === "openapi" ? await openapi() : asyncapi();

// It can say no: a binding that the specification does not know, a path that is none.
const bad = kind === "openapi"
  ? { openapi: "3.1.0", info: { title: "t", version: "1" }, paths: { "no-slash": {} } }
  : {
    asyncapi: "3.0.0",
    info: { title: "t", version: "1" },
    servers: { s: { host: "h", protocol: "p", bindings: { rocketmq: {} } } },
  };
if ((await check(bad)).length === 0) throw new Error("the validator takes what is wrong");

let wrong = 0;
for (const file of files) {
  const errors = await check(JSON.parse(readFileSync(file, "utf8")));
  for (const error of errors.slice(0, 10)) console.error(`${file}: ${error}`);
  wrong += errors.length;
}
console.log(`${files.length} ${kind} documents, ${wrong} errors`);
process.exit(wrong === 0 ? 0 : 1);
