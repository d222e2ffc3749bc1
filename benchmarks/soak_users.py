"""People who use the app at once: programs through gradio_client, and real browsers. Each checks what it is shown."""

import contextlib
import random
import shutil
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image
from playwright.sync_api import Error as PlaywrightError
from playwright.sync_api import Page, sync_playwright
from playwright.sync_api import TimeoutError as PlaywrightTimeout

from benchmarks.soak_app import App
from wan_ui.media import muxer
from wan_ui.queue.jobs import ENDED
from wan_ui.settings import ROOT

EXAMPLES = ROOT / "assets" / "examples"
WORDS = ("zoom in", "pan left", "pan right", "zoom out", "tilt up", "sunset light", "slowly zoom in", "shake")
LORAS = ("wan-tiny-teal-orange.safetensors:{}:low_noise", "wan-tiny-spiral (high + low):{}:both")
SIZES = ("256x256", "320x192", "192x320", "auto")
FLAGS = ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--autoplay-policy=no-user-gesture-required"]
CHROMIUM = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
REFUSALS = {  # what a refusal says -> how it is counted
    "waiting already": "the queue is full",
    "can wait in line now": "the queue is full",
    "MB free in": "the disk is full",
    "could not be stored": "the disk is full",
    "cannot be used (": "the job table cannot be used",
    "has locked the job table": "the job table is locked",
}


@dataclass
class Asked:
    """What a user has asked for, as the clip has to say it too."""

    user: str
    prompt: str
    seed: int
    steps: int
    frames: int
    loras: list[str]
    state: str = ""  # the last that the user was told


@dataclass
class World:
    """What the users share.

    asked    job -> who has asked for what
    shown    user -> jobs that a page has shown as theirs
    counts   of what happened
    seen     what a user was shown of another's
    wrong    what else must not happen, in words
    """

    app: App
    folder: Path
    speech: bool
    words: str
    pause: float
    over: threading.Event = field(default_factory=threading.Event)
    asked: dict[str, Asked] = field(default_factory=dict)
    shown: dict[str, set[str]] = field(default_factory=dict)
    counts: Counter = field(default_factory=Counter)
    seen: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def count(self, what: str, number: int = 1) -> None:
        with self.lock:
            self.counts[what] += number

    def fault(self, words: str) -> None:
        with self.lock:
            self.wrong.append(words)

    def saw(self, words: str) -> None:
        with self.lock:
            self.seen.append(words)

    def refused(self, user: str, words: str) -> None:
        """A refusal for a reason that the soak has made."""
        known = next((name for part, name in REFUSALS.items() if part in words), "")
        self.count(f"refused: {known or 'otherwise'}")
        if not known:
            self.fault(f"{user} was refused: {words[:300]}")


class User(threading.Thread):
    """One that goes on until the world is over. number: also of its address."""

    def __init__(self, world: World, name: str, number: int):
        super().__init__(daemon=True, name=name)
        self.world, self.draw, self.number = world, random.Random(number), number
        self.folder = world.folder / name
        self.folder.mkdir()
        self.headers = {"X-Forwarded-For": f"10.1.0.{number + 1}"}
        self.made = 0

    def run(self) -> None:
        try:
            self.live()
        except Exception:
            self.world.fault(f"{self.name} has stumbled: {traceback.format_exc()}")

    def live(self) -> None:
        raise NotImplementedError

    def words(self) -> str:
        self.made += 1
        own = self.world.words or ", ".join(self.draw.sample(WORDS, 2))
        return f"{own}, {self.tag()}-{self.made}"

    def tag(self) -> str:
        return f"asked by {self.name}"

    def picture(self) -> Path:
        """One that nobody else has, of any shape and kind."""
        draw = np.random.default_rng(self.draw.getrandbits(32))
        height, width = draw.integers(90, 700, 2)
        y, x = np.mgrid[0:height, 0:width] / max(height, width)
        waves = [np.sin(draw.uniform(2, 7, 2) @ [x.ravel(), y.ravel()] + draw.uniform(0, 6)) for _ in range(3)]
        pixels = np.stack(waves, -1).reshape(height, width, 3) * draw.uniform(60, 120, 3) + draw.uniform(110, 140, 3)
        image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
        suffix = self.draw.choice(("png", "jpg", "webp"))
        mode = self.draw.choice(("RGB", "RGB", "L", "RGBA", "P")) if suffix == "png" else "RGB"
        path = self.folder / f"picture-{self.made}.{suffix}"
        image.convert(mode).save(path)
        return path

    def rest(self, seconds: float) -> None:
        self.world.over.wait(seconds * self.draw.uniform(0.5, 1.5))


class Program(User):
    """Asks through gradio_client: submits, follows, cancels, lists, waits, and sends what is no picture."""

    token = ""
    client: Client | None = None

    def live(self) -> None:
        while not self.world.over.is_set():
            began = time.monotonic()
            act = self.draw.choices((self.make, self.wait, self.spoil, self.list, self.peek), (12, 2, 3, 2, 2))[0]
            try:
                act()
            except AppError as error:
                self.world.refused(self.name, str(error))
            except Exception as error:
                self.lost(error, began, act.__name__)
            self.rest(self.world.pause)
        self.leave()

    def leave(self) -> None:
        """At the end: what still waits, or runs, is cancelled."""
        for job, asked in list(self.world.asked.items()):
            if asked.user == self.name and asked.state not in ENDED:
                with contextlib.suppress(AppError):
                    self.call("cancel", job=job, token=self.token)
                    self.world.count("cancels at the end")

    def lost(self, error: Exception, began: float, what: str) -> None:
        """A call without an answer of the app's."""
        self.client = None
        if self.world.app.was_away(began):
            self.world.count("calls that the app's end cut off")
        elif isinstance(error, httpx.TimeoutException | TimeoutError):
            self.world.count("calls not answered in time")
        elif isinstance(error, httpx.HTTPStatusError) and error.response.status_code in (503, 507):
            self.world.count(f"refused: with status {error.response.status_code}")
        else:
            self.world.fault(f"{self.name}, {what}: {''.join(traceback.format_exception(error))[-900:]}")
        self.rest(1)

    def call(self, name: str, **values: Any) -> Any:
        if self.client is None:
            kwargs = {"timeout": 120}
            downloads = str(self.folder)
            # ssl_verify: with it each call reads all authorities anew, more than all else it does; there is no TLS here
            self.client = Client(
                self.world.app.url,
                headers=self.headers,
                verbose=False,
                httpx_kwargs=kwargs,
                download_files=downloads,
                ssl_verify=False,
            )
        self.world.count(f"calls of {name}")
        return self.client.submit(**values, api_name=f"/{name}").result(600)

    def values(self) -> dict[str, Any]:
        loras = [one.format(self.draw.choice((0.5, 0.8, 1))) for one in LORAS if self.draw.random() < 0.25]
        values = {
            "prompt": self.words(),
            "seed": self.draw.randrange(2**31),
            "size": self.draw.choice(SIZES),
            "frames": self.draw.choice((17, 17, 17, 25)),
            "steps": self.draw.choice((1, 1, 2)),
            "loras": "\n".join(loras),
        }
        values["image"] = handle_file(self.picture())
        self.world.count("jobs with a LoRA", bool(loras))
        if self.world.speech and self.draw.random() < 0.12:
            values |= {"image": handle_file(EXAMPLES / "portrait.jpg"), "audio": handle_file(EXAMPLES / "voice.m4a")}
            values["loras"] = ""
            self.world.count("jobs with a voice")
        return values

    def make(self) -> None:
        """Submit, follow or leave, perhaps cancel, and look at the clip."""
        values, clips = self.values(), self.draw.choices((1, 2, 3), (8, 1, 1))[0]
        answer = self.call("submit", **values, clips=clips, token=self.token)
        self.token = answer["token"]
        self.world.count("presses for several clips", clips > 1)
        self.world.count("accepted", len(answer["jobs"]))
        for place, job in enumerate(answer["jobs"]):
            self.world.asked[job] = Asked(
                self.name,
                values["prompt"],
                (values["seed"] + place) % 2**32,
                values["steps"],
                values["frames"],
                values["loras"].splitlines(),
            )
        if len(set(answer["jobs"])) != clips:
            self.world.fault(f"{self.name} asked for {clips} clips and was given {answer['jobs']}")
        if self.draw.random() < 0.15:
            return  # nobody waits for it
        cancel = self.draw.randrange(1, 5) if self.draw.random() < 0.25 else 0
        for job in answer["jobs"]:
            looks = 0
            while not self.world.over.is_set():
                began = time.monotonic()
                try:
                    looks += 1
                    if looks == cancel:
                        self.world.count("cancels")
                        self.call("cancel", job=job, token=self.token)
                    if self._told(job, self.call("status", job=job, token=self.token)):
                        break
                except AppError as error:
                    self.world.refused(self.name, str(error))
                except Exception as error:
                    self.lost(error, began, "following")
                self.rest(2 * self.world.pause)
            if self.world.asked[job].state == "done":
                self._check(job, *self.call("result", job=job, token=self.token))

    def _told(self, job: str, status: dict[str, Any]) -> bool:
        """Whether it has ended. What has ended stays so."""
        asked = self.world.asked[job]
        if asked.state in ENDED and status["state"] != asked.state:
            self.world.fault(f"{job} was {asked.state} and is {status['state']}")
        if status["prompt"] != asked.prompt:
            self.world.saw(f"{self.name} was told of another's job: {status}")
        asked.state = status["state"]
        return asked.state in ENDED

    def _check(self, job: str, video: Any, settings: dict[str, Any]) -> None:
        """The clip and the settings that came are those of this job."""
        asked, path = self.world.asked[job], Path(video["video"] if isinstance(video, dict) else video)
        found = muxer.read_metadata(path)
        for where, said in (("settings", settings), ("clip", found)):
            if (said["prompt"], said["seed"]) != (asked.prompt, asked.seed):
                self.world.saw(f"{self.name} was shown the {where} of {said['prompt']!r}, {said['seed']}")
        self.world.count("clips looked at")
        shutil.rmtree(path.parent, ignore_errors=True)

    def wait(self) -> None:
        """The call that answers with the clip."""
        values = self.values() | {"loras": ""}
        try:
            video, settings = self.call("generate", **values)
        except AppError as error:
            said = str(error)
            if not any(
                part in said for part in ("worker", "progress", "interrupted", "stopped", "disk", "ffmpeg", "space")
            ):
                raise
            self.world.count("waited for a clip that failed")
            return
        asked = Asked(self.name, values["prompt"], values["seed"], values["steps"], values["frames"], [], "done")
        self.world.asked[settings["job"]] = asked
        self.world.count("accepted")
        self._check(settings["job"], video, settings)

    def spoil(self) -> None:
        """What must be refused, in words that name it."""
        names = {"nothing.png": b"", "noise.png": self.draw.randbytes(500), "page.svg": b"<svg><script/></svg>"}
        names["torn.jpg"] = (EXAMPLES / "cat.jpg").read_bytes()[:900]
        names["head.png"] = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\xff\xff\xff\xff\xff\xff\xff\xff\x08\2\0\0\0" + bytes(40)
        name, content = self.draw.choice(list(names.items()))
        path = self.folder / name
        path.write_bytes(content)
        wrong = self.draw.choice(({}, {}, {"size": "1x1"}, {"model": "none"}, {"steps": -1}, {"loras": "no:1:both"}))
        values = {"image": handle_file(self.picture() if wrong else path), "prompt": self.words(), **wrong}
        named = next(iter(wrong), "image")
        try:
            answer = self.call("submit", **values, token=self.token)
        except AppError as error:
            if any(part in str(error) for part in REFUSALS):
                raise
            if not str(error).startswith(named):
                self.world.fault(f"{self.name} sent {wrong or name} and was told: {str(error)[:300]}")
            self.world.count("refused: bad input")
        except httpx.HTTPStatusError as error:  # the upload itself
            if error.response.status_code not in (400, 413):
                raise
            self.world.count("refused: bad input")
        else:
            self.world.fault(f"{self.name} sent {wrong or name} and was given a job: {answer}")

    def list(self) -> None:
        if not self.token:
            return
        for job in self.call("list", limit=100, token=self.token)["jobs"]:
            if self.tag() not in job["prompt"]:
                self.world.saw(f"{self.name} was told of another's job: {job}")
            if job["job"] in self.world.asked:
                self._told(job["job"], job)

    def peek(self) -> None:
        """At another's job, by its very id."""
        others = [job for job, asked in list(self.world.asked.items()) if asked.user != self.name]
        if not others or not self.token:
            return
        job = self.draw.choice(others)
        for name in ("status", "result", "cancel"):
            try:
                answer = self.call(name, job=job, token=self.token)
            except AppError as error:
                if "there is no job" not in str(error):
                    raise
            else:
                self.world.saw(f"{self.name} asked for another's job, {name}, and was told: {answer}")
        self.world.count("looks at another's job, refused")


class Person(User):
    """In a browser of their own: picture, prompt, Generate; loads the page again, cancels, looks at the history."""

    def live(self) -> None:
        with sync_playwright() as playwright:
            path = next((found for found in map(shutil.which, CHROMIUM) if found), None)
            browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
            page = browser.new_context(extra_http_headers=self.headers, reduced_motion="reduce").new_page()
            page.set_default_timeout(120_000)
            fresh = True
            while not self.world.over.is_set():
                began = time.monotonic()
                try:
                    if fresh:
                        page.goto(self.world.app.url, wait_until="domcontentloaded")
                        page.locator("#card", has_not_text="Connecting").wait_for()
                        fresh = False
                    fresh = not self.use(page)  # what a refusal says stays there until the next press
                except PlaywrightError as error:
                    fresh = True
                    if self.world.app.was_away(began):
                        self.world.count("pages opened again, the app was away")
                    elif isinstance(error, PlaywrightTimeout):
                        self.world.count("pages opened again, not answered in time")
                        page.screenshot(path=self.folder / f"page-{self.made}.png")
                    else:
                        self.world.fault(f"{self.name}: {str(error)[:600]}")
                    self.rest(1)
                self.rest(self.world.pause)
            browser.close()

    def use(self, page: Page) -> bool:
        """Whether it was taken."""
        prompt = self.words()
        page.set_input_files("#picture input[type=file]", self.picture())
        page.locator("#picture-crop img").wait_for()
        page.fill("#prompt textarea", prompt)
        page.click("#generate")
        self.world.count("presses of Generate")
        tile = page.locator("#history .w-tile", has_text=prompt)
        refused = page.locator("#message")
        self.wait_for(page, lambda: tile.count() or refused.inner_text().strip())
        if not tile.count():
            if said := refused.inner_text().strip():
                self.world.refused(self.name, said)
            return False
        act = self.draw.choices((None, self.reload, self.cancel), (3, 2, 1))[0]
        if act is not None:
            act(page)
        ended = page.locator("#history .w-tile:not(.queued):not(.running)", has_text=prompt)
        self.wait_for(page, lambda: ended.count())
        self.look(page)
        return True

    def wait_for(self, page: Page, condition: Callable[[], Any]) -> None:
        while not self.world.over.is_set() and not condition():
            page.wait_for_timeout(250)

    def reload(self, page: Page) -> None:
        page.reload(wait_until="domcontentloaded")
        page.locator("#card", has_not_text="Connecting").wait_for()
        self.world.count("reloads")

    def cancel(self, page: Page) -> None:
        button = page.locator("#cancel")
        if button.is_visible():
            button.click(timeout=5_000)
            self.world.count("cancels on a page")

    def look(self, page: Page) -> None:
        """All that the history shows is theirs, also what is folded: of that nothing is inner text."""
        shown = page.locator("#history .w-tile").evaluate_all("all => all.map(e => [e.dataset.tile, e.textContent])")
        for job, words in shown:
            self.world.shown.setdefault(self.name, set()).add(job)
            if self.tag() not in words:
                self.world.saw(f"the page of {self.name} shows {words!r}")
        self.world.count("histories looked at")
