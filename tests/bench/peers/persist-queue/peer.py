"""persist-queue on the work that `bench scenario peers` gives to every queue. Prints one line of JSON."""

import json
import sys
import threading
import time

import persistqueue

folder, mode, count = sys.argv[1:]
# Its settings are durable as shipped; there is nothing to change.
queue = persistqueue.SQLiteAckQueue(folder, multithreading=True)
card = {"card": "x" * 600}

if int(count) > 0:
    # Only these, so that what they cost can be counted from outside.
    for _ in range(int(count)):
        queue.put(card)
    sys.exit(0)

for _ in range(200):
    queue.put(card)
took = []
for _ in range(500):
    began = time.perf_counter()
    queue.put(card)
    took.append(time.perf_counter() - began)
took.sort()


def put_many():
    for _ in range(10):
        queue.put(card)


threads = [threading.Thread(target=put_many) for _ in range(64)]
began = time.perf_counter()
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
waiting = 640 / (time.perf_counter() - began)
began = time.perf_counter()
for _ in range(500):
    queue.ack(queue.get())
one = 500 / (time.perf_counter() - began)
print(
    json.dumps(
        {
            "peer": "persist-queue 1.1.0",
            "enqueue_p50_us": took[250] * 1e6,
            "enqueue_64_per_s": waiting,
            "cycles_1_per_s": one,
        }
    )
)
