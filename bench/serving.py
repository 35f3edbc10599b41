"""What the scripts about `switchyard serve` share: the program as a child on loopback, and one completion."""

import http.client
import json
import os
import re
import signal
import subprocess
import tempfile
import time


class Server:
    """A child that says "http://127.0.0.1:PORT" once it listens; its messages go to a file."""

    def __init__(self, command, threads=None, seconds=300):
        self.log = tempfile.NamedTemporaryFile("w+", prefix="serving-")
        environment = dict(os.environ, OMP_WAIT_POLICY="passive", **({"OMP_NUM_THREADS": str(threads)} if threads else {}))
        self.process = subprocess.Popen([str(part) for part in command], stderr=self.log, stdout=self.log, env=environment)
        deadline = time.time() + seconds
        while not (found := re.search(r"http://127\.0\.0\.1:(\d+)", self.messages())):
            if self.process.poll() is not None or time.time() > deadline:
                raise RuntimeError(f"{command[0]} did not come up:\n{self.messages()[-2000:]}")
            time.sleep(0.05)
        self.port = int(found.group(1))

    def messages(self):
        return open(self.log.name, errors="replace").read()

    def status(self, key):
        """A number of the kernel's about the child: VmRSS in kB, Threads."""
        return int(re.search(rf"^{key}:\s+(\d+)", open(f"/proc/{self.process.pid}/status").read(), re.M).group(1))

    def end(self, seconds=120):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise


def ask(port, method, path, body=None, timeout=120):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        connection.request(method, path, body if isinstance(body, (bytes, type(None))) else json.dumps(body), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def complete(port, **body):
    status, answer = ask(port, "POST", "/v1/completions", body)
    if status != 200:
        raise RuntimeError(f"status {status}: {answer[:300]!r}")
    return json.loads(answer)["choices"][0]
