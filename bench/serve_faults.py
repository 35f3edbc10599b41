#!/usr/bin/env python3
"""Random faults against a server of ours, on loopback, beside honest clients who must notice nothing.

    bench/serve_faults.py --model DIR [--program build/release/switchyard] [--seconds 600] [--seed 1]

Clients that hang up in mid-stream, send half a body, read slowly, send malformed JSON, UTF-8 and HTTP, huge headers, wrong
methods; at the end SIGTERM under load. Fails (1) if the server crashes or does not end by itself, if an honest client gets
another answer than the first one, or if memory or threads grow. With --program of a build under AddressSanitizer, its reports
fail the run as well, that of leaks at the end among them; its own bookkeeping grows, so give it --grown-kB 200000.
"""

import argparse
import http.client
import json
import os
import pathlib
import random
import socket
import sys
import threading
import time

from serving import Server, complete

PROMPT = "Ada found <extra_id_0> at the market of <extra_id_1>."
HONEST = [{"max_tokens": 24}, {"max_tokens": 24, "temperature": 0.9, "seed": 7}, {"max_tokens": 16, "beams": 2}]


def post(body, path="/v1/completions", length=None):
    return f"POST {path} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: {len(body) if length is None else length}\r\n\r\n".encode() + body


def long_request(draw):
    return json.dumps({"prompt": PROMPT, "stream": draw.random() < 0.7, "max_tokens": 400, "min_tokens": 399}).encode()


def hang_up(connection, draw):
    connection.sendall(post(long_request(draw)))
    if draw.random() < 0.7:
        connection.recv(draw.choice([1, 100, 1000]))


def half_body(connection, draw):
    body = long_request(draw)
    connection.sendall(post(body[:draw.randrange(len(body))], length=len(body)))
    time.sleep(draw.choice([0, 0.01, 0.3]))


def slow_reader(connection, draw):
    connection.sendall(post(json.dumps({"prompt": PROMPT, "stream": True, "max_tokens": 60}).encode()))
    for _ in range(20):
        if not connection.recv(20):
            return
        time.sleep(0.02)


def bad_json(connection, draw):
    body = bytearray(json.dumps({"prompt": PROMPT, "max_tokens": draw.choice([1, -1, 1e300, "x", None])}).encode())
    for _ in range(draw.randrange(6)):
        body[draw.randrange(len(body))] = draw.choice(b'{}[]",:\\0\xff\xc3')
    connection.sendall(post(draw.choice([bytes(body), b"[" * 5000, b"\xff" * 300, b"", b'{"prompt": "\\ud800"}', b'{"prompt":' + b'"a' * 2000]),
                            path=draw.choice(["/v1/completions", "/v1/embeddings", "/embeddings", "/routing", "/tokenize", "/detokenize"])))
    status = connection.recv(16)
    if status and not status.startswith((b"HTTP/1.1 4", b"HTTP/1.1 200")):
        raise AssertionError(f"bad JSON was answered by {status!r}")


def huge_headers(connection, draw):
    kind = draw.randrange(3)
    line = [b"X: " + b"a" * 200000 + b"\r\n", b"".join(b"X%d: y\r\n" % n for n in range(5000)), b"Content-Length: 99999999999999999999\r\n"][kind]
    connection.sendall(b"POST /v1/completions HTTP/1.1\r\n" + line + b"\r\n")


def wrong_methods(connection, draw):
    method = draw.choice([b"DELETE", b"BREW", b"PUT", b"OPTIONS", b"HEAD", b"GET", b"\x00\x01", b"POST"])
    connection.sendall(method + b" " + draw.choice([b"/v1/completions", b"/" + b"a" * 9000, b"*", b"/%00%ff", b"http://[::1]:x/"]) + draw.choice([b" HTTP/1.1", b" HTTP/9.9", b""]) + b"\r\n\r\n")
    connection.recv(100)


def noise(connection, draw):
    connection.sendall(draw.randbytes(draw.randrange(1, 5000)))


FAULTS = [hang_up, half_body, slow_reader, bad_json, huge_headers, wrong_methods, noise]


class Run:
    def __init__(self, port):
        self.port, self.stop, self.ending = port, threading.Event(), threading.Event()
        self.failures, self.counts, self.lock = [], {}, threading.Lock()

    def count(self, name):
        with self.lock:
            self.counts[name] = self.counts.get(name, 0) + 1

    def misbehave(self, seed):
        draw = random.Random(seed)
        while not self.stop.is_set():
            fault = draw.choice(FAULTS)
            try:
                with socket.create_connection(("127.0.0.1", self.port), timeout=5) as connection:
                    fault(connection, draw)
                    if draw.random() < 0.3:  # RST in place of FIN
                        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            except AssertionError as error:
                if not (self.ending.is_set() and "503" in str(error)):
                    self.failures.append(str(error))
            except ConnectionRefusedError:
                time.sleep(0.05)  # it is ending
                continue
            except OSError:
                pass  # the server may cut off whoever misbehaves
            self.count(fault.__name__)

    def be_honest(self, expected):
        while not self.stop.is_set():
            for keys, text in zip(HONEST, expected):
                try:
                    if complete(self.port, prompt=PROMPT, **keys)["text"] != text:
                        self.failures.append(f"another answer to {keys}")
                    self.count("honest")
                except http.client.HTTPException as error:
                    self.failures.append(f"an honest client: an answer that began was cut off: {error!r}")
                except (OSError, RuntimeError) as error:
                    if self.ending.is_set():
                        return  # what comes once it ends is refused
                    if "429" not in str(error):
                        self.failures.append(f"an honest client: {error}")
                if self.stop.is_set():
                    return


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--program", default=pathlib.Path(__file__).resolve().parents[1] / "build/release/switchyard")
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--grown-kB", type=int, default=40000, help="most that resident memory may grow in the last two thirds")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    # Freed memory that AddressSanitizer holds back, by default up to 1 MiB a thread, would look as if the server grew.
    os.environ.setdefault("ASAN_OPTIONS", "quarantine_size_mb=16:thread_local_quarantine_size_kb=64")
    server = Server([options.program, "serve", "--model", options.model, "--port", 0, "--dtype", "fp32", "--queue", 64])
    expected = [complete(server.port, prompt=PROMPT, **keys)["text"] for keys in HONEST]
    run = Run(server.port)
    threads = [threading.Thread(target=run.misbehave, args=(options.seed * 100 + n,)) for n in range(6)]
    threads += [threading.Thread(target=run.be_honest, args=(expected,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    begin, settled, settled_threads = time.time(), None, None
    while time.time() < begin + options.seconds and server.process.poll() is None:
        time.sleep(min(0.2, options.seconds))
        if settled is None and time.time() > begin + options.seconds / 3:
            settled, settled_threads = server.status("VmRSS"), server.status("Threads")
    grown = server.status("VmRSS") - settled if settled and server.process.poll() is None else 0
    more_threads = server.status("Threads") - settled_threads if settled and server.process.poll() is None else 0
    # SIGTERM under load: everybody goes on until it has ended.
    crashed, begin_end = server.process.poll(), time.time()
    run.ending.set()
    code = server.end()
    run.stop.set()
    for thread in threads:
        thread.join()
    failures = list(run.failures)
    if crashed is not None or code != 0:
        failures.append(f"the server ended with {code}:\n{server.messages()[-3000:]}")
    if "Sanitizer" in server.messages():
        failures.append(server.messages()[-3000:])
    if grown > options.grown_kB or more_threads > 0:
        failures.append(f"grown by {grown} kB and {more_threads} threads")
    print(json.dumps({"seconds": round(time.time() - begin, 1), "faults": run.counts, "grown_kB": grown, "ended_in_seconds": round(time.time() - begin_end, 2), "failures": failures[:5]}))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
