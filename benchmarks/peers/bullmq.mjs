// BullMQ (Node): events -> a worker that adds each to three queues -> three workers that do nothing.
//
// Called with the server's URL, the folder that holds node_modules, the number of events and that of the
// warm-up before the clock starts. Prints one line of JSON. The events are those of benchmarks/workload.py.
//
// Settings, all from BullMQ's own guide:
//   concurrency 50                    docs.bullmq.io/guide/workers/concurrency
//   removeOnComplete, removeOnFail    docs.bullmq.io/guide/queues/auto-removal-of-jobs
//   addBulk in batches                docs.bullmq.io/guide/queues/adding-bulks
//   one shared connection for queues  docs.bullmq.io/guide/connections
//   events stream cut to 0 entries    docs.bullmq.io/guide/events: only QueueEvents reads it, and there is none
//   no metrics, no telemetry          the default
// Locks and the check for stalled jobs stay on: without them a job is not delivered at least once. Tried and
// left out: ioredis's enableAutoPipelining, which was 5 to 15 % slower here.

import { createRequire } from 'node:module';
import { resolve } from 'node:path';

const [url, folder, count, warmUp] = process.argv.slice(2);
const require = createRequire(resolve(folder, 'package.json'));
const { Queue, Worker } = require('bullmq');
const { Redis } = require('ioredis');

const CHANNELS = ['one', 'two', 'three'];
const CONCURRENCY = 50;
const BATCH = 500;

const connection = new Redis(url, { maxRetriesPerRequest: null });
const forget = { removeOnComplete: true, removeOnFail: true };
const queue = (name) =>
  new Queue(name, { connection, defaultJobOptions: forget, streams: { events: { maxLen: 0 } } });

const events = queue('events');
const channels = CHANNELS.map(queue);

let left = 0;
let done = () => {};

async function route(job) {
  await Promise.all(channels.map((channel) => channel.add('deliver', job.data)));
}

async function deliver() {
  left -= 1;
  if (left === 0) done();
}

function event(number) {
  return {
    type: 'like',
    recipient: `user-${number % 1000}`,
    actor: { id: `user-${number % 977}`, name: 'Ada Lovelace' },
    data: { photo_id: `p${number}`, photo_title: 'Sunset over the sea', likes: number },
  };
}

async function fanOut(count) {
  left = count * CHANNELS.length;
  const finished = new Promise((settle) => { done = settle; });
  const start = process.hrtime.bigint();
  for (let at = 0; at < count; at += BATCH) {
    const size = Math.min(BATCH, count - at);
    await events.addBulk(Array.from({ length: size }, (_, i) => ({ name: 'route', data: event(at + i) })));
  }
  await finished;
  return count / (Number(process.hrtime.bigint() - start) / 1e9);
}

const work = (name, handler) =>
  new Worker(name, handler, {
    connection, concurrency: CONCURRENCY, removeOnComplete: { count: 0 }, removeOnFail: { count: 0 },
  });
const workers = [work('events', route), ...CHANNELS.map((name) => work(name, deliver))];
for (const worker of workers) {
  worker.on('error', (error) => { console.error(error.message); process.exit(1); });
  worker.on('failed', (_, error) => { console.error(error.message); process.exit(1); });
}

await Promise.all(workers.map((worker) => worker.waitUntilReady()));
await fanOut(Number(warmUp));
const rate = await fanOut(Number(count));
console.log(JSON.stringify({ fanout_events_per_s: rate }));
process.exit(0); // nothing is left in the queues, and the server is emptied next
