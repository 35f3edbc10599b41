"""A server of a small model, and clients of it: what the tests of `switchyard serve` share."""

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import tempfile
import time

from conftest import PROGRAM

PROMPT = "Ada found <extra_id_0> at the market of <extra_id_1>."


class Served:
    """A server at a free port. What it says and prints goes to files: a pipe that nobody reads would stop it."""

    def __init__(self, command, *options):
        environment = dict(os.environ, OMP_NUM_THREADS="2", OMP_WAIT_POLICY="passive")
        self.said, self.printed = (tempfile.NamedTemporaryFile("w+") for _ in range(2))
        self.process = subprocess.Popen([PROGRAM, *map(str, command), "--port", "0", *map(str, options)], stdout=self.printed,
                                        stderr=self.said, text=True, env=environment)
        deadline = time.time() + 60
        while not (found := re.search(r"http://127\.0\.0\.1:(\d+)", self.messages())):
            assert self.process.poll() is None and time.time() < deadline, self.messages()
            time.sleep(0.02)
        self.port = int(found.group(1))

    def messages(self):
        return open(self.said.name).read()

    def output(self):
        return open(self.printed.name).read()

    def ask(self, method, path, body=None, headers=None):
        """Status, headers and body of an answer; a body that is no text is sent as JSON."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request(method, path, body if isinstance(body, (str, bytes, type(None))) else json.dumps(body), headers or {})
        answer = connection.getresponse()
        text = answer.read().decode()
        connection.close()
        return answer.status, answer.headers, json.loads(text) if text[:1] in ("{", "[") else text

    def well(self, path, body):
        """The answer to a body that must be taken."""
        status, _, answer = self.ask("POST", path, body)
        assert status == 200, answer
        return answer

    def complete(self, **keys):
        return self.well("/v1/completions", {"prompt": PROMPT, "max_tokens": 12, **keys})

    def refusal(self, path, body, status=400):
        given, _, answer = self.ask("POST", path, body)
        assert given == answer["error"]["code"] == status, answer
        return answer["error"]["message"]

    def metrics(self):
        """Values of /metrics by name with labels."""
        lines = self.ask("GET", "/metrics")[2].splitlines()
        return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))}

    def metric(self, name):
        return self.metrics()[name]

    def raw(self, data):
        """A connection on which these bytes were sent."""
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=10)
        connection.sendall(data)
        return connection

    def end(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        self.process.communicate(timeout=60)
        return self.process.returncode


def serve(model, *options):
    return Served(["serve", "--model", model, "--dtype", "fp32"], *options)


def events(text):
    """The events of a stream that ended well."""
    lines = [line[len("data: "):] for line in text.split("\n\n") if line]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]
