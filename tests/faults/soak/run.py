"""One proxy under the load of `load` before the provider of `provider`, looked at from outside every few seconds.

Owns the three processes, the configuration with everything switched on that keeps something, the samples and the verdict.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import psutil  # type: ignore[import-untyped]

from benchmarks.accounting import Cores, CpuClock
from llm_proxy.option_groups import GROUPS
from tests.faults.soak import mix
from tests.server.process import Proxy, running

MIB: Final = 1024 * 1024
STEEPEST: Final = 1.0
"""MiB per 100 000 requests (P11)."""
ENOUGH: Final = 100_000
"""Requests after the warm-up below which a slope says nothing: the tables are still filling."""
SPARE: Final = 5
"""Descriptors and tasks that may be more than before."""
SETTLING: Final = 90.0
"""Seconds until idle connections to providers have been closed."""
HANG_UP_EVERY: Final = 30.0
LOG_BYTES: Final = MIB
_ROOT: Final = Path(__file__).resolve().parents[3]
_BAD: Final = re.compile(
    r"Traceback|never retrieved|was destroyed|never awaited|failed to serve|the exchange failed|CRITICAL"
)
_CAPTURE_BYTES: Final = 1_000_000

Say = Callable[[str], None]

_WANTED: Final[dict[str, Any]] = {
    "session.repository": "file",
    "session.expiry_seconds": 30,
    "session.max_age": 120,
    "session.cleanup_interval": 5,
    "responses.store_ttl_seconds": 20,
    "failover.cooldown_initial_seconds": 0.2,
    "failover.cooldown_max_seconds": 1.0,
    "failover.max_wait_seconds": 20.0,
    "logging.file": "proxy.log",
    "logging.max_size_mb": 1,
    "logging.backup_count": 2,
    "logging.capture_file": "capture.jsonl",
    "logging.capture_max_bytes": _CAPTURE_BYTES,
    "logging.capture_max_files": 2,
    "logging.capture_total_max_bytes": 5 * _CAPTURE_BYTES,
    "logging.capture_rotate_interval_seconds": 60,
    "audit.enabled": True,
    "response_cache.enabled": True,
    "response_cache.ttl_seconds": 20,
    "proxy.shutdown_grace": 5.0,
}
"""Whatever keeps something is on, with short lives."""


def settings(url: str) -> dict[str, Any]:
    known = {one.path for group in GROUPS for one in group.options}
    tree: dict[str, Any] = {"backends": mix.back_ends_at(url), "failover_routes": mix.routes()}
    for path, value in _WANTED.items():
        if path in known:
            group, _, name = path.rpartition(".")
            tree.setdefault(group, {})[name] = value
    return tree


@dataclass(frozen=True)
class Sample:
    """What was seen at one moment; `asked` counts the requests so far, `cpu` is in seconds."""

    at: float
    asked: int
    open: int
    rss: int
    descriptors: int
    threads: int
    tasks: int
    cpu: float
    p50: float | None
    p99: float | None


@dataclass
class Report:
    """Everything that was seen. `before` and `after` are samples without load."""

    seconds: float
    rate: float
    samples: list[Sample] = field(default_factory=list)
    ended: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    bad_lines: list[str] = field(default_factory=list)
    levels: Counter[str] = field(default_factory=Counter)
    before: Sample | None = None
    after: Sample | None = None
    status: int = -1
    provider: dict[str, Any] = field(default_factory=dict)
    too_large: list[str] = field(default_factory=list)
    reloads: int = 0
    silent: int = 0
    """How often the status page did not come in time."""

    @property
    def steady(self) -> list[Sample]:
        """The samples after the warm-up, which is the first third."""
        return self.samples[len(self.samples) // 3 :]

    @property
    def slope(self) -> float:
        """MiB of resident memory per 100 000 requests after the warm-up."""
        return slope([one.asked / 100_000 for one in self.steady], [one.rss / MIB for one in self.steady])

    @property
    def measured(self) -> int:
        """Requests after the warm-up."""
        return self.steady[-1].asked - self.steady[0].asked if self.steady else 0

    def problems(self) -> list[str]:
        """In what the promise was broken; empty when it was kept."""
        assert self.before is not None and self.after is not None
        found = [f"wrong answer: {one}" for one in self.wrong]
        found += [f"log: {line}" for line in self.bad_lines]
        found += self.too_large
        if self.ended["wrong"] or not self.ended["stream"] or not self.ended["whole"]:
            found.append(f"answers: {dict(self.ended)}")
        if self.measured >= ENOUGH and self.slope >= STEEPEST:
            found.append(f"memory grows by {self.slope:.2f} MiB per 100 000 requests")
        if self.after.descriptors > self.before.descriptors + SPARE:
            found.append(f"descriptors: {self.before.descriptors} before, {self.after.descriptors} after")
        if self.after.tasks > self.before.tasks + SPARE:
            found.append(f"tasks: {self.before.tasks} before, {self.after.tasks} after")
        if self.silent:
            found.append(f"the status page did not come within ten seconds, {self.silent} times")
        if self.status != 0:
            found.append(f"exit status {self.status}")
        if self.provider.get("connections", 0) > SPARE or self.provider.get("malformed"):
            found.append(f"the provider is left with {self.provider}")
        return found

    def text(self) -> str:
        """The figures, for people."""
        assert self.before is not None and self.after is not None
        fifth = max(1, len(self.samples) // 5)
        parts = [("first", self.samples[:fifth]), ("last", self.samples[-fifth:])]
        lines = [
            f"{self.samples[-1].asked} requests in {self.samples[-1].at:.0f} s ({self.rate:g} per second wanted), {self.reloads} reloads",
            f"ended: {dict(self.ended)}",
            f"provider: {self.provider}",
            f"log lines: {dict(self.levels)}",
            f"memory: {self.before.rss / MIB:.1f} MiB before, {self.samples[-1].rss / MIB:.1f} at the end of the load, "
            f"{self.after.rss / MIB:.1f} after; {self.slope:+.2f} MiB per 100 000 over the last {self.measured} requests",
            f"descriptors: {self.before.descriptors} before, at most {max(one.descriptors for one in self.samples)}, "
            f"{self.after.descriptors} after; tasks: {self.before.tasks}, {max(one.tasks for one in self.samples)}, "
            f"{self.after.tasks}; threads: {self.before.threads}, {max(one.threads for one in self.samples)}, {self.after.threads}",
        ]
        for name, samples in parts:
            spent = samples[-1].cpu - samples[0].cpu
            count = samples[-1].asked - samples[0].asked
            each = f"{spent / count * 1e6:.0f} µs of CPU per request" if count else "-"
            lines.append(f"{name} fifth: whole answers p50 {_median(one.p50 for one in samples):.1f} ms, "
                         f"p99 {_median(one.p99 for one in samples):.1f} ms; {each}")  # fmt: skip
        return "\n".join(lines)


def _median(values: Iterator[float | None]) -> float:
    known = sorted(value for value in values if value is not None)
    return known[len(known) // 2] if known else float("nan")


def slope(x: Sequence[float], y: Sequence[float]) -> float:
    """Of the line with the least squares; 0 for less than two points."""
    if len(x) < 2:
        return 0.0
    middle_x, middle_y = sum(x) / len(x), sum(y) / len(y)
    spread = sum((one - middle_x) ** 2 for one in x)
    return (
        sum((one - middle_x) * (other - middle_y) for one, other in zip(x, y, strict=True)) / spread if spread else 0.0
    )


class Log:
    """Reads a log that is put aside again and again, as it grows."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._open: Any = None
        self.levels: Counter[str] = Counter()
        self.bad: list[str] = []

    def read(self) -> None:
        """What has been written since the last look."""
        while True:
            if self._open is None:
                if not self._file.exists():
                    return
                self._open = self._file.open(encoding="utf-8", errors="replace")
            for line in self._open:
                self._look(line)
            try:
                if os.fstat(self._open.fileno()).st_ino == self._file.stat().st_ino:
                    return
            except FileNotFoundError:
                return
            self.close()

    def _look(self, line: str) -> None:
        if level := re.match(r"\S+ \S+ ([A-Z]+) ", line):
            self.levels[level[1]] += 1
        if _BAD.search(line) and len(self.bad) < 20:
            self.bad.append(line.rstrip())

    def close(self) -> None:
        if self._open is not None:
            self._open.close()
            self._open = None


class Watched:
    """The proxy as it looks from outside."""

    def __init__(self, proxy: Proxy) -> None:
        self._proxy = proxy
        self._process = psutil.Process(proxy.child.pid)
        self._cpu = CpuClock(proxy.child.pid)
        self._begun = time.monotonic()
        self.silent = 0

    def sample(self, line: dict[str, Any] | None = None) -> Sample:
        line = line or {}
        told = self._told()
        return Sample(
            at=time.monotonic() - self._begun,
            asked=line.get("asked", 0),
            open=line.get("open", 0),
            rss=self._process.memory_info().rss,
            descriptors=self._process.num_fds(),
            threads=self._process.num_threads(),
            tasks=int(told.get("tasks", 0)),
            cpu=self._cpu.read(),
            p50=line.get("p50"),
            p99=line.get("p99"),
        )

    def _told(self) -> dict[str, Any]:
        """What the proxy says of itself; nothing when it does not answer within ten seconds."""
        try:
            status = self._proxy.get("/internal/status")
        except TimeoutError:
            self.silent += 1
            return {}
        return dict(status.json) if status.status == 200 else {}


@contextmanager
def program(name: str, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """One of the two other processes."""
    child = subprocess.Popen(
        [sys.executable, "-m", f"tests.faults.soak.{name}", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=_ROOT,
        env={**os.environ, "PYTHONPATH": f"{_ROOT}{os.pathsep}{_ROOT / 'src'}"},
    )
    assert child.stdin is not None and child.stdout is not None
    try:
        yield child
    finally:
        child.kill()
        child.wait()
        child.stdin.close()
        child.stdout.close()


def soak(folder: Path, seconds: float, rate: float, say: Say = lambda line: None, cores: Cores | None = None,
         env: dict[str, str] | None = None) -> Report:  # fmt: skip
    """Runs it all; takes `seconds`, and up to `SETTLING` more."""
    report = Report(seconds, rate)
    cores = cores or Cores()
    cores.load()
    try:
        with program("provider") as provider:
            assert provider.stdout is not None and provider.stdin is not None
            url = f"http://127.0.0.1:{int(provider.stdout.readline())}"
            (folder / "config.json").write_text(json.dumps(settings(url)))
            cores.measured()
            with running(folder, "--config", str(folder / "config.json"), env=env, forked=False) as proxy:
                cores.load()
                _under_load(report, folder, proxy, say)
                report.after = _settled(report, proxy)
                report.status = proxy.stop()
                report.bad_lines += [line for line in proxy.log.splitlines() if _BAD.search(line)]
            provider.stdin.close()
            report.provider = json.loads(provider.stdout.readline())
    finally:
        cores.release()
    return report


def _under_load(report: Report, folder: Path, proxy: Proxy, say: Say) -> None:
    watched, log = Watched(proxy), Log(folder / "proxy.log")
    with program("load", str(proxy.main[1]), "--first", "0", "--rate", "20", "--seconds", "2") as first:
        first.wait()  # what is made at the first request is there
    report.before = _settled(report, proxy)
    hung_up = time.monotonic()
    with program("load", str(proxy.main[1]), "--first", "1600", "--rate", f"{report.rate}",
                 "--seconds", f"{report.seconds}") as load:  # fmt: skip
        assert load.stdout is not None
        for text in load.stdout:
            line = json.loads(text)
            sample = watched.sample(line)
            report.samples.append(sample)
            report.ended.update(line["ended"])
            report.wrong = [*report.wrong, *line["wrong"]][:20]
            log.read()
            _look_at_files(report, folder)
            say(f"{sample.at:6.0f} s  {sample.asked:7d} asked  {sample.open:4d} open  {sample.rss / MIB:6.1f} MiB  "
                f"{sample.descriptors:4d} fds  {sample.tasks:4d} tasks  p50 {sample.p50 or 0:5.1f}  p99 {sample.p99 or 0:6.1f} ms  "
                f"{line['ended'].get('wrong', 0)} wrong")  # fmt: skip
            if time.monotonic() > hung_up + HANG_UP_EVERY:
                hung_up = time.monotonic()
                proxy.send_signal(signal.SIGHUP)
                report.reloads += 1
    log.read()
    log.close()
    report.levels, report.bad_lines, report.silent = log.levels, log.bad, watched.silent


def _settled(report: Report, proxy: Proxy) -> Sample:
    """Without load: as soon as it holds no more than before, or when it does not come to that."""
    watched = Watched(proxy)
    before = report.before
    deadline = time.monotonic() + (SETTLING if before else 0)
    while True:
        sample = watched.sample()
        if before is None or time.monotonic() > deadline:
            return sample
        if sample.descriptors <= before.descriptors + SPARE and sample.tasks <= before.tasks + SPARE:
            return sample
        time.sleep(0.5)


def _look_at_files(report: Report, folder: Path) -> None:
    """Logs and captures stay within what the configuration says."""
    logs = list(folder.glob("proxy.log*"))
    captures = list((folder / "data").glob("capture.jsonl*"))
    if len(logs) > 3 or sum(file.stat().st_size for file in logs) > 3 * LOG_BYTES * 1.2:
        report.too_large.append(f"the log has {len(logs)} files")
    if len(captures) > 3 or sum(file.stat().st_size for file in captures) > 5 * _CAPTURE_BYTES:
        report.too_large.append(f"the capture has {len(captures)} files")
    del report.too_large[20:]
