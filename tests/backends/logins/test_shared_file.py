"""S-16: two processes of the proxy and a CLI that writes at will share one login file, and any of them may be killed at any moment."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.backends.logins.shared_file.provider import Provider

PROGRAMS = Path(__file__).with_name("shared_file")
REFUSED = ("fault house_credentials_invalid", "fault backend_unavailable")  # damaged by the CLI, which was killed
SOURCES = Path(__file__).parents[3] / "src"


class Process:
    """One process of the proxy."""

    def __init__(self, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(PROGRAMS / "gateway.py"), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
            env={**os.environ, "PYTHONPATH": str(SOURCES)},
        )
        assert self.read() == "ready"

    def ask(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("token\n")
        self.process.stdin.flush()

    def read(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def kill(self) -> None:
        """Ends it as `kill -9` does."""
        self.process.kill()
        self.process.communicate()


class Machine:
    """A login file, its provider, and the processes that share it."""

    def __init__(self, directory: Path) -> None:
        self.path, self.clock = directory / "login.json", directory / "clock"
        self.clock.write_text("1000")
        self.provider = Provider(self.clock)
        self.arguments = (str(self.path), str(self.clock), self.provider.url)
        self.log_in()
        self.gateways = [Process(*self.arguments), Process(*self.arguments)]

    def log_in(self) -> None:
        other = self.path.with_name("new-login")
        other.write_text(json.dumps(self.provider.login()))
        other.chmod(0o600)
        other.replace(self.path)

    def on_disk(self) -> dict[str, Any] | None:
        try:
            found: dict[str, Any] = json.loads(self.path.read_text())
        except ValueError:
            return None
        return found

    def later(self) -> None:
        """So much time passes that every token has expired."""
        other = self.clock.with_name("clock-new")
        other.write_text(str(float(self.clock.read_text()) + 10_000))
        other.replace(self.clock)

    def cli(self, seed: int, in_place: float) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-S", str(PROGRAMS / "cli.py"), *self.arguments, str(seed), str(in_place)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert process.stdout is not None and process.stdout.readline() == b"ready\n"
        return process

    def both(self) -> list[str]:
        for gateway in self.gateways:
            gateway.ask()
        return [gateway.read() for gateway in self.gateways]

    def close(self) -> None:
        for gateway in self.gateways:
            gateway.kill()
        self.provider.close()


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    machine = Machine(tmp_path)
    yield machine
    machine.close()


def check(machine: Machine) -> None:
    """The file is whole, both processes end with its token, the provider takes it, and will take its refresh token."""
    found = machine.both()
    document = machine.on_disk()
    assert document is not None
    assert found == [document["access_token"]] * 2
    assert machine.provider.good(found[0])
    assert machine.provider.accepts(document["refresh_token"]), "a refresh token was lost"


def quiet_round(machine: Machine) -> None:
    machine.later()
    before = machine.provider.renewals, machine.provider.repeated
    first, second = machine.both()
    assert first == second and machine.provider.good(first)
    assert machine.provider.renewals == before[0] + 1, "one refresh per expiry"
    assert machine.provider.repeated == before[1]
    check(machine)


def wild_round(machine: Machine, dice: random.Random, expiries: int = 6) -> None:
    """The CLI works at the file meanwhile, and it or a process of the proxy is killed."""
    in_place = dice.choice([0.0, 0.5])
    cli = machine.cli(dice.randrange(1 << 30), in_place)
    victim = dice.choice([None, *machine.gateways])
    moment = dice.randrange(1, expiries)
    for number in range(moment if victim is None else expiries):
        machine.later()
        for gateway in machine.gateways:
            gateway.ask()
        if number == moment:
            assert victim is not None
            time.sleep(dice.random() * 0.03)  # so that it is hit at any point of its renewal
            victim.kill()
        for gateway in machine.gateways:
            if gateway is victim and number == moment:
                continue
            answer = gateway.read()
            assert machine.provider.good(answer) or answer.startswith(REFUSED), answer
        if number == moment and victim is not None:
            machine.gateways[machine.gateways.index(victim)] = Process(*machine.arguments)
            victim, moment = None, -1
        assert in_place or machine.on_disk() is not None, "whoever replaces files leaves none broken"
    cli.kill()
    cli.communicate()
    if machine.on_disk() is None:
        assert in_place
        machine.log_in()  # the CLI died while it wrote; its user logs in again
    check(machine)


def play(machine: Machine, rounds: int, seed: int) -> None:
    dice = random.Random(seed)
    for _ in range(rounds):
        quiet_round(machine)
        wild_round(machine, dice)


def test_two_processes_make_one_refresh_call_and_end_with_the_same_token(machine: Machine) -> None:
    for _ in range(5):
        quiet_round(machine)


def test_nothing_is_lost_while_others_write_and_are_killed(machine: Machine) -> None:
    play(machine, 6, seed=1)


@pytest.mark.long
def test_ten_thousand_writes_and_renewals_lose_nothing(
    machine: Machine, record_property: Callable[[str, object], None]
) -> None:
    """S-16. Every look asserts: no refresh token lost, no file broken, one renewal per expiry. Ends early on a slow machine."""
    dice = random.Random(16)
    rounds, end = 0, time.monotonic() + 220
    while machine.provider.issued < 10_000 and time.monotonic() < end:
        quiet_round(machine)
        wild_round(machine, dice, expiries=100)
        rounds += 1
    figures = {"issued": machine.provider.issued, "renewals": machine.provider.renewals, "rounds": rounds}
    for name, figure in figures.items():
        record_property(name, figure)
    print(figures)
    assert machine.provider.issued >= 1000
