"""A headless Chromium, driven by its DevTools protocol through a pipe: JSON messages that end with a zero byte.

https://chromedevtools.github.io/devtools-protocol/: ``--remote-debugging-pipe`` reads descriptor 3 and writes 4.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.sandbox import need

PROGRAMS = ("chromium-headless-shell", "chromium")
# Tests are root in a container, where Chromium's own sandbox is not possible; the page is ours.
OPTIONS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--remote-debugging-pipe",
           "--no-first-run", "--disable-background-networking")
KEYS = {"Enter": 13, "Escape": 27, "Backspace": 8, "Tab": 9, "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39,
        "ArrowDown": 40}


class Page:
    """A page of the browser. ``said``: what it wrote to the console, errors and refusals of its policy among it."""

    def __init__(self, write: int, read: int) -> None:
        self._write, self._read = write, read
        self._rest = b""
        self._number = 0
        self._events: list[dict[str, Any]] = []
        self._session = ""
        self.said: list[str] = []
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self._call(f"{domain}.enable")
        self._call("Emulation.setFocusEmulationEnabled", enabled=True)
        self.requests: list[str] = []

    def open(self, page: Path | str) -> None:
        """Load a file or an address, to its end. The pointer is in the corner then."""
        self._call("Input.dispatchMouseEvent", type="mouseMoved", x=0, y=0)
        self._call("Page.navigate", url=page.as_uri() if isinstance(page, Path) else page)
        self.loaded()

    def loaded(self) -> None:
        """Wait for the end of loading a page: of the one that a click or a key opens."""
        self._wait("Page.loadEventFired")

    def prefer(self, scheme: str) -> None:
        """The viewer's ``prefers-color-scheme``."""
        self._call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def size(self, width: int, height: int) -> None:
        self._call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def value(self, expression: str) -> Any:
        """The value of a JavaScript expression; of a promise, once it is kept."""
        answer = self._call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def click(self, selector: str) -> None:
        """Press and release the mouse in the middle of an element, as a person does."""
        chosen = json.dumps(selector)
        x, y = self.value(f"(() => {{ const element = document.querySelector({chosen});"
                          "element.scrollIntoView({block: 'center', behavior: 'instant'});"
                          "const box = element.getBoundingClientRect();"
                          "return [box.x + box.width / 2, box.y + box.height / 2]; })()")
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            pressed = {} if kind == "mouseMoved" else {"button": "left", "clickCount": 1}
            self._call("Input.dispatchMouseEvent", type=kind, x=x, y=y, **pressed)

    def key(self, *names: str) -> None:
        """Press keys: letters, or names of KEYS."""
        for name in names:
            code = {"windowsVirtualKeyCode": KEYS[name]} if name in KEYS else {}
            text = {"text": name} if len(name) == 1 else {"text": "\r"} if name == "Enter" else {}
            self._call("Input.dispatchKeyEvent", type="keyDown", key=name, **code, **text)
            self._call("Input.dispatchKeyEvent", type="keyUp", key=name, **code)

    def names(self) -> list[tuple[str, str]]:
        """Role and name of everything that a screen reader can say."""
        nodes = self._call("Accessibility.getFullAXTree")["nodes"]
        return [(node["role"]["value"], node.get("name", {}).get("value", ""))
                for node in nodes if not node["ignored"]]

    def _wait(self, event: str) -> None:
        while not any(found["method"] == event for found in self._events):
            self._receive()
        self._events = [found for found in self._events if found["method"] != event]

    def _call(self, method: str, **parameters: Any) -> Any:
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._write, data):]
        while True:
            answer = self._receive()
            if answer and answer["id"] == self._number:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return answer["result"]

    def _receive(self) -> dict[str, Any] | None:
        """The next message: an answer, or None for an event, which is noted."""
        while b"\0" not in self._rest:
            data = os.read(self._read, 1 << 20)
            assert data, "the browser has ended"
            self._rest += data
        raw, _, self._rest = self._rest.partition(b"\0")
        message: dict[str, Any] = json.loads(raw)
        if "id" in message:
            return message
        self._events.append(message)
        method, parameters = message["method"], message["params"]
        if method == "Runtime.exceptionThrown":
            self.said.append(json.dumps(parameters["exceptionDetails"]))
        elif method == "Log.entryAdded":
            self.said.append(parameters["entry"]["text"])
        elif method == "Network.requestWillBeSent":
            self.requests.append(parameters["request"]["url"])
        return None


def program() -> Sequence[str]:
    found = next(filter(None, map(shutil.which, PROGRAMS)), None)
    need(found, "needs chromium-headless-shell")
    assert found
    return [found, *OPTIONS]


@contextmanager
def browser(folder: Path) -> Iterator[Page]:
    """A browser with an empty page.

    :param folder: for its profile.
    """
    argv = [*program(), f"--user-data-dir={folder}/profile"]
    to_read, write = os.pipe()
    read, to_write = os.pipe()

    def descriptors() -> None:
        # Beyond 4 first: one of them may be 3 or 4 already.
        inner, outer = os.dup(to_read), os.dup(to_write)
        os.dup2(inner, 3)
        os.dup2(outer, 4)

    process = subprocess.Popen(argv, preexec_fn=descriptors, close_fds=False, stdin=subprocess.DEVNULL,
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    os.close(to_read)
    os.close(to_write)
    try:
        yield Page(write, read)
    finally:
        os.close(write)  # it ends with the pipe
        os.close(read)
        process.wait()
