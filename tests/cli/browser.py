"""Headless Chromium for tests of pages, spoken to through its debugging pipes. Nothing but the standard library."""

import base64
import json
import os
import shutil
import subprocess
import tempfile
import time

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
KEYS = {"Tab": 9, "Enter": 13, "Escape": 27, "End": 35, "Home": 36, "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40}
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no chromium here: pages were not looked at (apt-get install chromium)")


class Browser:
    """One page. Whatever its scripts complain of, or fetch from elsewhere than the page's own server, is kept."""

    def __init__(self, width=1360, height=1000):
        self.folder = tempfile.TemporaryDirectory()
        (to_read, self.to), (self.back, from_write) = os.pipe(), os.pipe()
        # Chromium reads descriptor 3 and writes 4: two that are not the ends themselves come between.
        os.set_inheritable(to_read, True), os.set_inheritable(from_write, True)
        self.process = subprocess.Popen(
            ["bash", "-c", f'exec "$@" 3<&{to_read} 4>&{from_write}', "chromium", CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu",
             "--disable-dev-shm-usage", "--no-first-run", f"--user-data-dir={self.folder.name}", f"--window-size={width},{height}", "--remote-debugging-pipe", "about:blank"],
            pass_fds=(to_read, from_write), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        os.close(to_read), os.close(from_write)
        self.rest, self.number, self.session = b"", 0, None
        self.complaints, self.requests = [], []
        target = next(target for target in self.send("Target.getTargets")["targetInfos"] if target["type"] == "page")
        self.session = self.send("Target.attachToTarget", targetId=target["targetId"], flatten=True)["sessionId"]
        for domain in "Page", "Runtime", "Network", "Log":
            self.send(domain + ".enable")

    def read(self):
        while b"\0" not in self.rest:
            part = os.read(self.back, 1 << 20)
            assert part, "chromium has ended"
            self.rest += part
        message, self.rest = self.rest.split(b"\0", 1)
        message = json.loads(message)
        method, given = message.get("method"), message.get("params", {})
        if method == "Runtime.exceptionThrown":
            self.complaints.append(given["exceptionDetails"]["exception"].get("description", given["exceptionDetails"]["text"]))
        if method == "Network.requestWillBeSent":
            self.requests.append(given["request"]["url"])
        return message

    def send(self, method, **parameters):
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.to, json.dumps(message).encode() + b"\0")
        while (answer := self.read()).get("id") != self.number:
            pass
        assert "error" not in answer, answer
        return answer["result"]

    def open(self, url):
        self.send("Page.navigate", url=url)
        self.wait("document.readyState === 'complete'")

    def value(self, expression):
        """What an expression of JavaScript gives, once its promise is kept."""
        result = self.send("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def wait(self, expression, seconds=30):
        deadline = time.time() + seconds
        while not (value := self.value(expression)):
            assert time.time() < deadline, (expression, self.complaints)
            time.sleep(0.05)
        return value

    def type(self, text):
        self.send("Input.insertText", text=text)

    def press(self, key, control=False):
        for kind in "rawKeyDown", "keyUp":
            self.send("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=KEYS[key], modifiers=2 if control else 0)
        if key == "Enter" and not control:
            self.send("Input.dispatchKeyEvent", type="char", text="\r")

    def set_dark(self, dark):
        self.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}])

    def screenshot(self, path):
        """A PNG of the whole page."""
        content = self.send("Page.getLayoutMetrics")["cssContentSize"]
        picture = self.send("Page.captureScreenshot", captureBeyondViewport=True, clip={"x": 0, "y": 0, "scale": 1, **{side: content[side] for side in ("width", "height")}})
        path.write_bytes(base64.b64decode(picture["data"]))

    def colours(self, picture, points):
        """What a screenshot shows at these places [x, y]: [red, green, blue] each. The browser reads its own picture."""
        source = "data:image/png;base64," + base64.b64encode(picture.read_bytes()).decode()
        return self.value(f"""(async () => {{
          const image = new Image();
          image.src = '{source}';
          await image.decode();
          const canvas = new OffscreenCanvas(image.width, image.height).getContext('2d');
          canvas.drawImage(image, 0, 0);
          return {json.dumps(points)}.map(([x, y]) => [...canvas.getImageData(x, y, 1, 1).data].slice(0, 3)); }})()""")

    def close(self):
        os.close(self.to)
        self.process.wait(120)
        os.close(self.back)
        self.folder.cleanup()
