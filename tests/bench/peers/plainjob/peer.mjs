// plainjob on the work that `bench scenario peers` gives to every queue. Prints one line of JSON.
// It is synchronous: nobody can wait beside anybody, so "64 waiting" is what it offers instead, 64 in one call.
import { join } from "node:path";
import Database from "better-sqlite3";
import { better, defineQueue } from "plainjob";

const [folder, mode, count] = process.argv.slice(2);
const database = new Database(join(folder, "queue.db"));
const silent = { error() {}, warn() {}, info() {}, debug() {} };
const queue = defineQueue({ connection: better(database), logger: silent });
if (mode === "durable") database.pragma("synchronous = FULL");
const card = { card: "x".repeat(600) };
const now = () => Number(process.hrtime.bigint());

if (Number(count) > 0) {
  // Only these, so that what they cost can be counted from outside.
  for (let i = 0; i < Number(count); i++) queue.add("card", card);
  process.exit(0);
}
for (let i = 0; i < 200; i++) queue.add("card", card);
const took = [];
for (let i = 0; i < 500; i++) {
  const began = now();
  queue.add("card", card);
  took.push(now() - began);
}
took.sort((a, b) => a - b);
let began = now();
for (let i = 0; i < 50; i++) queue.addMany("card", Array(64).fill(card));
const waiting = 3200 / ((now() - began) / 1e9);
began = now();
for (let i = 0; i < 500; i++) {
  const job = queue.getAndMarkJobAsProcessing("card");
  queue.markJobAsDone(job.id);
}
const one = 500 / ((now() - began) / 1e9);
console.log(
  JSON.stringify({
    peer: "plainjob 0.0.14",
    enqueue_p50_us: took[250] / 1e3,
    enqueue_64_per_s: waiting,
    cycles_1_per_s: one,
  })
);
process.exit(0);
