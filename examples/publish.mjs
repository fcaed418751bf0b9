// Publishes events from standard input, one JSON object a line, without the Python client.
// docs/reference/wire-format.md says what is done here and why.
//
//   npm install redis@5
//   NOTIFIER_REDIS_URL=redis://127.0.0.1:6379 node publish.mjs < events.jsonl
//   NOTIFIER_REDIS_URL=redis://127.0.0.1:6379 node publish.mjs --once notifier/broker/lua < events.jsonl
//
// With --once and the folder of notifier's scripts, an event is accepted once for each id and recipient
// within 24 hours, as by the Python client.

import { randomUUID } from "node:crypto";
import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { createClient } from "redis";

const DEDUP_WINDOW_MS = 24 * 60 * 60 * 1000;
const BACKLOG_LIMIT = 100_000;

// CRC-32 of ISO 3309, as in zlib.
export function crc32(bytes) {
  let crc = 0xffffffff;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? 0xedb88320 : 0);
  }
  return (crc ^ 0xffffffff) >>> 0;
}

export function partitionTag(recipientId, { namespace, partitions, layout = 1 }) {
  const partition = crc32(Buffer.from(recipientId, "utf8")) % partitions;
  const begin = layout === 1 ? namespace : `${namespace}:${layout}`;
  return `{${begin}:${String(partition).padStart(2, "0")}}`;
}

export async function installation(client, namespace = "ntf") {
  const [partitions, wire, layout, changing] = await client.hmGet(
    `${namespace}:meta`, ["partitions", "wire", "layout", "changing"],
  );
  if (!partitions) throw new Error(`nothing is installed in ${namespace}: start a worker first`);
  if (wire !== "1") throw new Error(`wire format ${wire} is not known here`);
  if (changing) throw new Error(`${namespace} is being changed to ${changing} partitions: try again later`);
  return { namespace, partitions: Number(partitions), layout: Number(layout ?? 1) };
}

// One [recipient id, `to`, `event`] for each recipient.
export function encode({ recipient, recipients = [recipient], ...event }) {
  const body = JSON.stringify({ id: randomUUID(), occurred_at: new Date().toISOString(), ...event });
  return recipients.map((one) => {
    const id = typeof one === "string" ? one : one.id;
    const isBare = typeof one === "string" && !id.startsWith("{");
    return [id, isBare ? id : JSON.stringify(typeof one === "string" ? { id } : one), body];
  });
}

export async function publish(client, place, source) {
  for (const [id, to, event] of encode(source)) {
    await client.xAdd(`${partitionTag(id, place)}:events`, "*", { v: "1", to, event });
  }
}

export function script(folder, name) {
  const text = readFileSync(`${folder}/${name}.lua`, "utf8");
  return text.replace(/^-- include (\w+)$/gm, (_, part) =>
    readFileSync(`${folder}/includes/${part}.lua`, "utf8").trimEnd(),
  );
}

// How many recipients were new.
export async function publishOnce(client, place, lua, source) {
  let accepted = 0;
  for (const [id, to, event] of encode(source)) {
    const tag = partitionTag(id, place);
    const { id: eventId, deliver_at } = JSON.parse(event);
    const seen = `${tag}:seen:${eventId}`;
    const due = deliver_at ? String(Date.parse(deliver_at)) : "";
    const [result, waiting] = await client.eval(lua, {
      keys: [`${tag}:events`, `${tag}:scheduled`, `${tag}:scheduled:items`, seen],
      arguments: [String(BACKLOG_LIMIT), String(DEDUP_WINDOW_MS), due, id, "1", to, event],
    });
    if (result < 0) throw new Error(`the partition holds ${waiting} events; publish again later`);
    accepted += result;
  }
  return accepted;
}

async function main() {
  const [option, folder] = process.argv.slice(2);
  const lua = option === "--once" ? script(folder, "publish") : null;
  const client = createClient({ url: process.env.NOTIFIER_REDIS_URL });
  await client.connect();
  const place = await installation(client);
  for await (const line of createInterface({ input: process.stdin })) {
    const event = JSON.parse(line);
    if (lua) console.log(`accepted for ${await publishOnce(client, place, lua, event)}`);
    else await publish(client, place, event);
  }
  await client.close();
}

if (process.argv[1] === new URL(import.meta.url).pathname) await main();
