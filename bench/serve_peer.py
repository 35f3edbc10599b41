#!/usr/bin/env python3
"""A plain server around a peer's generation, for bench/serve_load.py: one lock, greedy, tokens streamed as they come.

    bench/serve_peer.py hf|ctranslate2 MODEL THREADS DTYPE

POST {"prompt": [ids], "max_tokens": n} is answered by one event a token and "data: [DONE]". Every answer has n tokens.
"""

import http.server
import json
import sys
import threading


def with_transformers(path, threads, dtype):
    import torch
    import transformers
    torch.set_num_threads(threads)
    model = transformers.AutoModelForSeq2SeqLM.from_pretrained(path, dtype=getattr(torch, {"bf16": "bfloat16", "fp32": "float32"}[dtype])).eval()

    class Streamer(transformers.generation.streamers.BaseStreamer):
        def __init__(self, take):
            self.take, self.is_start = take, True

        def put(self, value):
            if not self.is_start:
                self.take(int(value))
            self.is_start = False

        def end(self):
            pass

    def generate(ids, count, take):
        with torch.no_grad():
            model.generate(torch.tensor([ids]), max_new_tokens=count, min_new_tokens=count, do_sample=False, num_beams=1, streamer=Streamer(take))
    return generate


def with_ctranslate2(path, threads, dtype):
    import ctranslate2
    translator = ctranslate2.Translator(path, device="cpu", compute_type={"fp32": "float32"}.get(dtype, dtype), intra_threads=threads, inter_threads=1)
    vocabulary = json.load(open(path + "/shared_vocabulary.json"))

    def generate(ids, count, take):
        translator.translate_batch([[vocabulary[n] for n in ids]], beam_size=1, max_decoding_length=count, min_decoding_length=count,
                                   callback=lambda step: take(step.token_id) and False)
    return generate


def main():
    kind, path, threads, dtype = sys.argv[1:]
    generate = {"hf": with_transformers, "ctranslate2": with_ctranslate2}[kind](path, int(threads), dtype)
    lock = threading.Lock()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.end_headers()
            with lock:
                generate(body["prompt"], body["max_tokens"], lambda token: self.wfile.write(b'data: {"token": %d}\n\n' % token))
            self.wfile.write(b"data: [DONE]\n\n")

        def log_message(self, *_):
            pass

    class Server(http.server.ThreadingHTTPServer):
        daemon_threads, request_queue_size = True, 128

    server = Server(("127.0.0.1", 0), Handler)
    print(f"http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
