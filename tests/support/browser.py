"""A real browser, Debian's chromium without a display, spoken to over its DevTools protocol: two pipes, one JSON document a message."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
import zlib
from pathlib import Path
from typing import Any

SECONDS = 60  # a busy machine is slow to start it


class Browser:
    """One tab with scripts switched off. Use it as a context manager."""

    def __enter__(self) -> Browser:
        self._folder = tempfile.mkdtemp(prefix="browser.")
        program = shutil.which("chromium")
        assert program, "apt-get install chromium"
        near, self._write = os.pipe()
        self._read, far = os.pipe()
        options = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--hide-scrollbars",
            "--remote-debugging-pipe",
            "--force-color-profile=srgb",
        ]
        # The protocol's descriptors are 3 and 4; a shell puts them there, from numbers that are out of the way.
        commands, answers = (fcntl.fcntl(descriptor, fcntl.F_DUPFD, 10) for descriptor in (near, far))
        os.close(near)
        os.close(far)
        self._process = subprocess.Popen(
            [
                "bash",
                "-c",
                f'exec 3<&{commands} 4>&{answers}; exec "$@"',
                "bash",
                program,
                *options,
                f"--user-data-dir={self._folder}",
                "about:blank",
            ],
            pass_fds=(commands, answers),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(commands)
        os.close(answers)
        self._buffer, self._number, self._session = b"", 0, None
        self.events: list[dict[str, Any]] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Log"):
            self.call(f"{domain}.enable")
        self.call("Emulation.setScriptExecutionDisabled", value=True)
        return self

    def __exit__(self, *_why: object) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._write)
        os.close(self._read)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _message(self, deadline: float) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            ready, _writable, _broken = select.select([self._read], [], [], max(0.0, deadline - time.monotonic()))
            block = os.read(self._read, 1 << 20) if ready else b""
            assert block, "chromium ended or does not answer"
            self._buffer += block
        text, _end, self._buffer = self._buffer.partition(b"\0")
        return json.loads(text)

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Call a method of the protocol and return its result; what happened meanwhile is in ``events``."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + SECONDS
        while True:
            answer = self._message(deadline)
            if answer.get("id") == self._number:
                assert "error" not in answer, answer["error"]
                return answer["result"]
            self.events.append(answer)

    def show(self, path: Path, width: int, *, height: int = 900, dark: bool = False) -> None:
        """Load a file in a window of this width, a phone's below 500, and wait until it is painted."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 500)
        scheme = "dark" if dark else "light"
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.events.clear()
        self.call("Page.navigate", url=path.resolve().as_uri())
        deadline = time.monotonic() + SECONDS
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
            self.events.append(self._message(deadline))

    def size(self) -> tuple[float, float]:
        """Return the width and height of what the page lays out, in CSS pixels: wider than the window means sideways scrolling."""
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        return size["width"], size["height"]

    def nodes(self, selector: str) -> list[int]:
        """Return the nodes that a CSS selector finds."""
        root = self.call("DOM.getDocument", depth=0)["root"]["nodeId"]
        return self.call("DOM.querySelectorAll", nodeId=root, selector=selector)["nodeIds"]

    def box(self, node: int) -> tuple[float, float, float, float]:
        """Return left, top, right and bottom of a node as it is laid out."""
        corners = self.call("DOM.getBoxModel", nodeId=node)["model"]["border"]
        return corners[0], corners[1], corners[4], corners[5]

    def text(self) -> str:
        """Return the text that is rendered, as assistive technology hears it."""
        tree = self.call("Accessibility.getFullAXTree")["nodes"]
        return "\n".join(str(node["name"]["value"]) for node in tree if node.get("role", {}).get("value") == "StaticText")

    def screenshot(self, *, whole: bool = True) -> bytes:
        """Return a PNG of the page, or of the window alone."""
        width, height = self.size()
        clip = {"clip": {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}} if whole else {}
        return base64.b64decode(self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole, **clip)["data"])

    def pixel(self, x: float, y: float) -> tuple[int, ...]:
        """Return red, green and blue of the pixel at a point of the page."""
        clip = {"x": int(x), "y": int(y), "width": 1, "height": 1, "scale": 1}
        data = base64.b64decode(self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=clip)["data"])
        chunks, place = b"", 8
        while place < len(data):
            size, kind = int.from_bytes(data[place : place + 4], "big"), data[place + 4 : place + 8]
            chunks += data[place + 8 : place + 8 + size] if kind == b"IDAT" else b""
            place += size + 12
        # One row of one pixel: a filter byte, which has nothing to refer to, and the channels.
        return tuple(zlib.decompress(chunks)[1:4])

    def requests(self) -> list[str]:
        """Return the addresses that the page on show has asked for."""
        return [event["params"]["request"]["url"] for event in self.events if event.get("method") == "Network.requestWillBeSent"]
