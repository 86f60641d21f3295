// LibreChat: its own schema reads the settings of the page, and its own package asks the model, as its server does for a
// custom endpoint (streams; whole answers where an endpoint has `disableStreaming`). `make clients` installs both.
import { readFileSync } from "node:fs";
import { createContentAggregator, GraphEvents, Providers, Run, ToolEndHandler } from "@librechat/agents";
import { HumanMessage } from "@librechat/agents/langchain/messages";
import { tool } from "@librechat/agents/langchain/tools";
import { load } from "js-yaml";
import { configSchema, extractEnvVariable } from "librechat-data-provider";
import { answerBatches, base, describeError } from "./batches.mjs";

// Only the gateway is asked. To count tokens it would load a vocabulary, for minutes where there is no network; without
// one it counts roughly.
const fetchAny = globalThis.fetch;
globalThis.fetch = (url, ...rest) =>
  String(url.url ?? url).startsWith(base) ? fetchAny(url, ...rest) : Promise.resolve(new Response("{}"));

const [settings] = process.argv.slice(4);
const [endpoint] = configSchema.strict().parse(load(readFileSync(settings, "utf8"))).endpoints.custom;
const clock = tool(() => "It is noon.", {
  name: "get_current_timestamp",
  description: "Tells the time.",
  schema: { type: "object", properties: {} },
});

function clientOf(model) {
  const configuration = { baseURL: extractEnvVariable(endpoint.baseURL) };
  const apiKey = extractEnvVariable(endpoint.apiKey);
  return { model, user: "ada", streaming: true, apiKey, configuration, ...endpoint.addParams };
}

// A conversation of one question, the parts of its answer, and the number of its pieces.
async function converse(one, clientOptions, tools = []) {
  const { contentParts, aggregateContent } = createContentAggregator();
  let events = 0;
  const collect = (event) => ({ handle: (_, data) => aggregateContent({ event, data }) });
  const count = { handle: (event, data) => { events += 1; aggregateContent({ event, data }); } };
  const customHandlers = {
    [GraphEvents.ON_RUN_STEP]: collect(GraphEvents.ON_RUN_STEP),
    [GraphEvents.ON_RUN_STEP_DELTA]: collect(GraphEvents.ON_RUN_STEP_DELTA),
    [GraphEvents.ON_RUN_STEP_COMPLETED]: collect(GraphEvents.ON_RUN_STEP_COMPLETED),
    [GraphEvents.ON_MESSAGE_DELTA]: count,
    [GraphEvents.TOOL_END]: new ToolEndHandler(),
  };
  const agent = { agentId: "aligner", provider: Providers.OPENAI, clientOptions, instructions: "Be brief.", tools };
  const graphConfig = { type: "standard", agents: [agent] };
  const run = await Run.create({ runId: one.prompt, graphConfig, returnContent: true, customHandlers });
  const config = { runId: one.prompt, configurable: { thread_id: one.prompt }, streamMode: "values", version: "v2" };
  await run.processStream({ messages: [new HumanMessage(one.prompt)] }, config);
  return { run, parts: contentParts.filter(Boolean), events };
}

function readingOf({ parts, events }) {
  const texts = parts.filter((part) => part.type === "text").map((part) => part.text);
  const calls = parts.filter((part) => part.type === "tool_call").map((part) => part.tool_call);
  return { text: texts.join("\n"), events, finish: calls.map((call) => `${call.name}: ${call.output}`).join() };
}

async function nameConversation(one) {
  const clientOptions = clientOf(one.model);
  const { run, parts } = await converse(one, clientOptions);
  const asked = { provider: Providers.OPENAI, inputText: one.prompt, contentParts: parts, titleMethod: "completion" };
  const { title } = await run.generateTitle({ ...asked, clientOptions, chainOptions: {} });
  return { text: title };
}

await answerBatches(
  {
    stream: async (one) => readingOf(await converse(one, clientOf(one.model))),
    whole: async (one) => readingOf(await converse(one, { ...clientOf(one.model), disableStreaming: true })),
    tools: async (one) => readingOf(await converse(one, clientOf(one.model), [clock])),
    title: nameConversation,
  },
  describeError,
);
