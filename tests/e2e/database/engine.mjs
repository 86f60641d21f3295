// Prisma's query engine for tests: its WebAssembly build behind the HTTP interface of the binary, which is not on npm.
//
// `query-engine -p PORT` is started by Prisma's Python client, which speaks GraphQL; this build speaks only Prisma's
// JSON protocol, so each query is translated.

import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { createRequire } from "node:module";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const installed = createRequire(join(process.env.ENGINE_PACKAGES, "package.json"));
const { parse } = installed("graphql");
const pg = installed("pg");
const { PrismaPg } = installed("@prisma/adapter-pg");
const { bindAdapter } = installed("@prisma/driver-adapter-utils");

async function queryEngine() {
  const folder = join(process.env.ENGINE_PACKAGES, "node_modules/@prisma/query-engine-wasm/postgresql");
  const code = await import(pathToFileURL(join(folder, "query_engine_bg.js")));
  const wasm = new WebAssembly.Module(readFileSync(join(folder, "query_engine_bg.wasm")));
  code.__wbg_set_wasm(new WebAssembly.Instance(wasm, { "./query_engine_bg.js": code }).exports);
  const datamodel = readFileSync(process.env.PRISMA_DML_PATH, "utf8");
  const pool = new pg.Pool({ connectionString: process.env.DATABASE_URL.replace(/\?.*$/, "") });
  const engine = new code.QueryEngine({ datamodel, logLevel: "error" }, () => {}, bindAdapter(new PrismaPg(pool)));
  await engine.connect(TRACE);
  return engine;
}

const TRACE = "{}";
const RAW = new Set(["queryRaw", "executeRaw"]);
const ACTION =
  /^(findUniqueOrThrow|findUnique|findFirstOrThrow|findFirst|findMany|createOne|createMany|updateOne|updateMany|upsertOne|deleteOne|deleteMany|aggregate|groupBy)(.*)$/;

// GraphQL has JSON values as text; the JSON protocol takes text for a text unless it is marked.
function jsonFields(datamodel) {
  const models = datamodel.matchAll(/^model (\w+) \{([^]*?)^\}/gm);
  return new Map(
    [...models].map(([, name, body]) => [name, new Set([...body.matchAll(/^\s*(\w+)\s+Json/gm)].map((match) => match[1]))]),
  );
}

function marked(value, fields) {
  if (Array.isArray(value)) return value.map((inner) => marked(inner, fields));
  if (value === null || typeof value !== "object") return value;
  return Object.fromEntries(
    Object.entries(value).map(([name, inner]) => [
      name,
      fields.has(name) && typeof inner === "string" ? { $type: "Json", value: inner } : marked(inner, fields),
    ]),
  );
}

function valueOf(node) {
  switch (node.kind) {
    case "IntValue":
    case "FloatValue":
      return Number(node.value);
    case "NullValue":
      return null;
    case "ListValue":
      return node.values.map(valueOf);
    case "ObjectValue":
      return Object.fromEntries(node.fields.map((field) => [field.name.value, valueOf(field.value)]));
    default:
      return node.value;
  }
}

function argumentsOf(field) {
  return Object.fromEntries(field.arguments.map((argument) => [argument.name.value, valueOf(argument.value)]));
}

function selectionOf(field) {
  const fields = field.selectionSet?.selections ?? [];
  return Object.fromEntries(
    fields.map((inner) => [
      inner.name.value,
      inner.selectionSet ? { arguments: argumentsOf(inner), selection: selectionOf(inner) } : true,
    ]),
  );
}

function translated(graphql) {
  const field = parse(graphql).definitions[0].selectionSet.selections[0];
  const name = field.name.value;
  if (RAW.has(name)) return { action: name, query: { arguments: argumentsOf(field), selection: {} } };
  const [, action, modelName] = ACTION.exec(name);
  const selection = action.endsWith("Many") && action !== "findMany" ? { count: true } : selectionOf(field);
  return { modelName, action, query: { arguments: marked(argumentsOf(field), JSON_FIELDS.get(modelName)), selection } };
}

// The JSON protocol marks what JSON has no type for; GraphQL has it plain.
function plain(value) {
  if (Array.isArray(value)) return value.map(plain);
  if (value === null || typeof value !== "object") return value;
  if ("$type" in value) return value.value;
  return Object.fromEntries(Object.entries(value).map(([name, inner]) => [name, plain(inner)]));
}

async function answered(engine, graphql, transaction) {
  const response = JSON.parse(await engine.query(JSON.stringify(translated(graphql)), TRACE, transaction));
  if (response.errors) return { errors: response.errors };
  return { data: { result: plain(Object.values(response.data)[0]) } };
}

async function handled(engine, request, body) {
  const transaction = request.headers["x-transaction-id"];
  const [, place, id, step] = request.url.split("/");
  if (request.url.startsWith("/status")) return { status: "ok" };
  if (place === "transaction" && id === "start") return JSON.parse(await engine.startTransaction(body, TRACE));
  if (place === "transaction") return JSON.parse(await engine[`${step}Transaction`](id, TRACE));
  const query = JSON.parse(body);
  if (!query.batch) return answered(engine, query.query, transaction);
  const batchResult = [];
  for (const part of query.batch) batchResult.push(await answered(engine, part.query, transaction));
  return { batchResult, errors: batchResult.flatMap((part) => part.errors ?? []) };
}

const [, , flag, port] = process.argv;
if (flag === "--version") {
  console.log("query-engine 393aa359c9ad4a4bb28630fb5613f9c281cde053");
  process.exit(0);
}
const JSON_FIELDS = jsonFields(readFileSync(process.env.PRISMA_DML_PATH, "utf8"));
const engine = await queryEngine();
createServer(async (request, response) => {
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  let reply;
  try {
    reply = await handled(engine, request, Buffer.concat(chunks).toString());
  } catch (error) {
    if (process.env.ENGINE_DEBUG) console.error(Buffer.concat(chunks).toString(), error);
    reply = { errors: [{ error: String(error), user_facing_error: { error_code: "P2010", message: String(error) } }] };
  }
  response.setHeader("content-type", "application/json");
  response.end(JSON.stringify(reply));
}).listen(Number(port), "localhost");
process.on("SIGINT", () => process.exit(0));
