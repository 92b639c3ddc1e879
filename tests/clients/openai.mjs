// OpenAI's JavaScript client against a server: node openai.mjs ADDRESS CUP.png MASK.png
// Prints one JSON object; the test that runs it looks at what is in it.
import { readFile } from "node:fs/promises";
import OpenAI, { APIError, toFile } from "openai";

const [address, cup, mask] = process.argv.slice(2);
const client = new OpenAI({ baseURL: `${address}/v1`, apiKey: "none", maxRetries: 2 });
const picture = async (path) => toFile(await readFile(path), "picture.png");
const said = {};

const two = await client.images.generate({ prompt: "чашка на столе", n: 2, size: "256x256", seed: 7 });
const first = await fetch(two.data[0].url);
said.generate = {
  size: two.size,
  seeds: two.data.map((datum) => datum.seed),
  numbers: two.data.map((datum) => datum.picture),
  type: first.headers.get("content-type"),
  bytes: (await first.arrayBuffer()).byteLength,
};

const edited = await client.images.edit({
  image: await picture(cup),
  mask: await picture(mask),
  prompt: "красная чашка",
  response_format: "b64_json",
});
said.edit = edited.data[0].b64_json;

const both = await client.images.edit({ image: [await picture(cup), await picture(mask)], prompt: "both" });
said.several = both.data.length;

const varied = await client.images.createVariation({ image: await picture(cup), n: 2 });
said.variation = varied.data.length;

const stream = await client.images.generate({ prompt: "a cup", stream: true, partial_images: 2, seed: 9 });
said.events = [];
for await (const event of stream) {
  said.events.push(event.type);
  said.streamed = event.b64_json;
}

said.models = [];
for await (const model of client.models.list()) {
  said.models.push(model.id);
}

const error = async (promise) => {
  try {
    await promise;
    return null;
  } catch (raised) {
    if (!(raised instanceof APIError)) throw raised;
    const { name } = raised.constructor;
    return { name, status: raised.status, code: raised.code, param: raised.param, type: raised.type };
  }
};
said.wrong = await error(client.images.generate({ prompt: "a cup", size: "10x10" }));
said.lost = await error(client.images.generate({ prompt: "a cup", model: "kandinsky-teapot" }));

console.log(JSON.stringify(said));
