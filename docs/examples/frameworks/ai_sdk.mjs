// The AI SDK: `node ai_sdk.mjs BASE_URL`. Answers are checked by the gateway, as BASE_URL.
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateText, streamText } from "ai";

const [baseURL] = process.argv.slice(2);
const metadata = (parsed) => (parsed?.toploc_proofs ? { toploc: { proofs: parsed.toploc_proofs } } : undefined);
const metadataExtractor = {
  extractMetadata: async ({ parsedBody }) => metadata(parsedBody),
  createStreamExtractor: () => {
    let last;
    return { processChunk: (chunk) => (last = metadata(chunk) ?? last), buildMetadata: () => last };
  },
};
const ask = { prompt: "What is 17 + 25?", temperature: 0, maxOutputTokens: 32 };
const served = (more) => createOpenAICompatible({ name: "served", baseURL, apiKey: "none", ...more })("toploc-mini");

const has = (result) => result?.toploc?.proofs !== undefined;
const plain = await generateText({ model: served({}), ...ask });
const told = await generateText({ model: served({ metadataExtractor }), ...ask });
const stream = streamText({ model: served({ metadataExtractor }), ...ask });
await stream.consumeStream();
const field = {
  response: has(plain.providerMetadata),
  "response, by metadataExtractor": has(told.providerMetadata),
  "stream, by metadataExtractor": has(await stream.providerMetadata),
};
console.log(JSON.stringify({ answer: plain.text, field }));
