"""What is measured: nginx as the floor, this proxy, and other gateways. How each is set up, started,
addressed and stopped.

Every target is one server process (with the children it makes itself) on the core of the measured process. A
target that is not installed or does not start is skipped with one line; it never fails the run.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from benchmarks import peers
from benchmarks.accounting import Cores, resident
from benchmarks.bodies import Shape, Size, request_body

SOURCE = Path(__file__).resolve().parent.parent / "src"
CLIENT_KEY = "bench-client-key"
PROVIDER_KEY = "sk-bench-provider-key"
MODELS = ("bench-json", "bench-burst-10", "bench-burst-400", "bench-paced-100")

ModeName = Literal["same", "translated", "anthropic"]


class Mode(msgspec.Struct, frozen=True, kw_only=True):
    """One way to ask a target. `model` has a place for the stub's model name."""

    shape: Shape
    path: str
    headers: Mapping[str, str]
    model: str = "{}"

    def request(self, port: int, model: str, size: Size = "small", stream: bool = False) -> bytes:
        """A complete HTTP request."""
        body = request_body(self.shape, size, self.model.format(model), stream)
        lines = [
            f"POST {self.path} HTTP/1.1",
            f"host: 127.0.0.1:{port}",
            "user-agent: bench/1.0",
            "accept: */*",
            "content-type: application/json",
            f"content-length: {len(body)}",
            *(f"{name}: {value}" for name, value in self.headers.items()),
        ]
        return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


class Skipped(Exception):
    """Why a target takes no part in this run."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _clean_environment(**extra: str) -> dict[str, str]:
    """Only what a program needs to run: no proxy settings, no provider keys."""
    names = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "SYSTEMROOT")
    return {name: os.environ[name] for name in names if name in os.environ} | extra


def exchange_blocking(port: int, request: bytes, timeout: float) -> bytes:
    """One request over a blocking socket; the answer's beginning, read until its status line is there."""
    with socket.create_connection(("127.0.0.1", port), timeout=timeout) as connection:
        connection.settimeout(timeout)
        connection.sendall(request)
        answer = b""
        while b"\r\n\r\n" not in answer:
            data = connection.recv(65536)
            if not data:
                break
            answer += data
        return answer


class Target:
    """One server. Subclasses say how it is started."""

    name = ""
    start_limit = 30.0

    def __init__(self, directory: Path, stub_port: int) -> None:
        self.directory = directory
        self.stub_port = stub_port
        self.port = free_port()
        self.modes: dict[ModeName, Mode] = {}
        self.start_seconds = 0.0
        self.idle_bytes = 0
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def command(self) -> tuple[Sequence[str], dict[str, str]]:
        """The command line and the environment. Raises Skipped."""
        raise NotImplementedError

    def first_request(self) -> bytes:
        """What the first answer is asked with."""
        return self.modes["same"].request(self.port, "bench-json")

    def start(self, cores: Cores) -> None:
        """Starts the process and waits for its first good answer. Raises Skipped."""
        command, environment = self.command()
        self.directory.mkdir(parents=True, exist_ok=True)
        log = self.directory / "output.txt"
        cores.measured()
        begin = time.perf_counter()
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                command,
                env=environment,
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        cores.load()
        try:
            self._wait_for_answer(begin)
        except BaseException:
            self.stop()
            raise
        self.start_seconds = time.perf_counter() - begin
        self.idle_bytes = resident(self.pid)

    def _wait_for_answer(self, begin: float) -> None:
        assert self._process is not None
        problem = "no connection"
        while time.perf_counter() - begin < self.start_limit:
            if self._process.poll() is not None:
                lines = (self.directory / "output.txt").read_text(errors="replace").strip().splitlines()
                last = f": {lines[-1][:200]}" if lines else ""
                raise Skipped(f"it ended at once with status {self._process.returncode}{last}")
            try:
                answer = exchange_blocking(self.port, self.first_request(), self.start_limit)
                if answer[9:12] == b"200":
                    return
                problem = repr(answer[:300])
                time.sleep(0.2)
            except OSError as error:
                problem = str(error)
                time.sleep(0.002)
        raise Skipped(f"no good answer within {self.start_limit:.0f} s ({problem})")

    def stop(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(5)


class Nginx(Target):
    """The floor: the least that a reverse proxy does."""

    name = "nginx"

    def __init__(self, directory: Path, stub_port: int) -> None:
        super().__init__(directory, stub_port)
        self.modes = {"same": Mode(shape="openai-chat", path="/v1/chat/completions", headers={})}

    def command(self) -> tuple[Sequence[str], dict[str, str]]:
        program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
        if program is None:
            raise Skipped("it is not installed (Debian: apt-get install nginx-light), so the floor is missing")
        self.directory.mkdir(parents=True, exist_ok=True)
        temporary = "\n".join(
            f"  {name}_temp_path {self.directory}/{name};"
            for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        user = "user root;" if hasattr(os, "geteuid") and os.geteuid() == 0 else ""
        (self.directory / "nginx.conf").write_text(
            f"""{user}
worker_processes 1;
daemon off;
pid {self.directory}/nginx.pid;
error_log stderr error;
events {{ worker_connections 8192; }}
http {{
{temporary}
  access_log off;
  server_tokens off;
  client_max_body_size 64m;
  client_body_buffer_size 1m;
  keepalive_requests 100000000;
  upstream stub {{ server 127.0.0.1:{self.stub_port}; keepalive 1024; keepalive_requests 100000000; }}
  server {{
    listen 127.0.0.1:{self.port} backlog=4096;
    location / {{
      proxy_pass http://stub;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_buffering off;
      proxy_read_timeout 300s;
    }}
  }}
}}
"""
        )
        arguments = [
            program,
            "-p",
            str(self.directory),
            "-c",
            str(self.directory / "nginx.conf"),
            "-e",
            "stderr",
        ]
        return arguments, _clean_environment()


class Bare(Target):
    """The libraries without the proxy: see `bare`."""

    name = "bare"

    def __init__(self, directory: Path, stub_port: int) -> None:
        super().__init__(directory, stub_port)
        self.modes = {"same": Mode(shape="openai-chat", path="/v1/chat/completions", headers={})}

    def command(self) -> tuple[Sequence[str], dict[str, str]]:
        environment = _clean_environment(PYTHONPATH=str(SOURCE.parent))
        return [sys.executable, "-m", "benchmarks.bare", str(self.port), str(self.stub_port)], environment


class Ours(Target):
    """This proxy as it is started by default: one process, a client key, usage recording, a data folder."""

    name = "llm-proxy"

    def __init__(self, directory: Path, stub_port: int, source: Path = SOURCE) -> None:
        super().__init__(directory, stub_port)
        self.source = source
        bearer = {"authorization": f"Bearer {CLIENT_KEY}"}
        self.modes = {
            "same": Mode(shape="openai-chat", path="/v1/chat/completions", headers=bearer),
            "translated": Mode(shape="openai-chat", path="/v1/chat/completions", headers=bearer, model="anthropic:{}"),
            "anthropic": Mode(
                shape="anthropic-messages",
                path="/v1/messages",
                headers={"x-api-key": CLIENT_KEY, "anthropic-version": "2023-06-01"},
                model="openai:{}",
            ),
        }
        self.demo = Mode(shape="openai-chat", path="/v1/chat/completions", headers=bearer, model="demo:{}")

    def command(self) -> tuple[Sequence[str], dict[str, str]]:
        self.directory.mkdir(parents=True, exist_ok=True)
        upstream = {
            "base_url": f"http://127.0.0.1:{self.stub_port}/v1",
            "api_key": PROVIDER_KEY,
            "max_connections": 4096,
        }
        config = {
            "data_dir": str(self.directory / "data"),
            "proxy": {"port": self.port, "anthropic_port": "off"},
            "auth": {"api_keys": [CLIENT_KEY]},
            "backends": {"openai": upstream, "anthropic": upstream},
            "default_backend": "openai",
        }
        path = self.directory / "config.json"
        path.write_text(json.dumps(config))
        environment = _clean_environment(PYTHONPATH=str(self.source))
        return [sys.executable, "-m", "llm_proxy", "--config", str(path)], environment

    def first_request(self) -> bytes:
        return self.demo.request(self.port, "demo")


class LiteLlm(Target):
    """LiteLLM's proxy, with a master key as its manual has it, without a database."""

    name = "LiteLLM"
    start_limit = 90.0

    def __init__(self, directory: Path, stub_port: int) -> None:
        super().__init__(directory, stub_port)
        bearer = {"authorization": f"Bearer sk-{CLIENT_KEY}"}
        self.modes = {
            "same": Mode(shape="openai-chat", path="/v1/chat/completions", headers=bearer),
            "translated": Mode(shape="openai-chat", path="/v1/chat/completions", headers=bearer, model="claude-{}"),
        }

    def command(self) -> tuple[Sequence[str], dict[str, str]]:
        program = peers.litellm()
        if program is None:
            raise Skipped(peers.reason("litellm"))
        self.directory.mkdir(parents=True, exist_ok=True)
        models = []
        for provider, prefix, base in (("openai", "", "/v1"), ("anthropic", "claude-", "")):
            for model in MODELS:
                parameters = {
                    "model": f"{provider}/{model}",
                    "api_base": f"http://127.0.0.1:{self.stub_port}{base}",
                    "api_key": PROVIDER_KEY,
                }
                models.append({"model_name": prefix + model, "litellm_params": parameters})
        config = {
            "model_list": models,
            "litellm_settings": {"telemetry": False},
            "general_settings": {"master_key": f"sk-{CLIENT_KEY}"},
        }
        path = self.directory / "config.yaml"
        path.write_text(json.dumps(config))  # JSON is YAML
        environment = _clean_environment(
            LITELLM_LOCAL_MODEL_COST_MAP="True", LITELLM_LOG="ERROR", LITELLM_TELEMETRY="False"
        )
        arguments = [str(program), "--config", str(path), "--host", "127.0.0.1", "--port", str(self.port)]
        return [*arguments, "--num_workers", "1"], environment


class Portkey(Target):
    """Portkey's gateway on Node."""

    name = "Portkey"
    start_limit = 40.0

    def __init__(self, directory: Path, stub_port: int) -> None:
        super().__init__(directory, stub_port)
        host = f"http://127.0.0.1:{stub_port}/v1"

        def headers(provider: str) -> dict[str, str]:
            return {
                "authorization": f"Bearer {PROVIDER_KEY}",
                "x-portkey-provider": provider,
                "x-portkey-custom-host": host,
            }

        self.modes = {
            "same": Mode(shape="openai-chat", path="/v1/chat/completions", headers=headers("openai")),
            "translated": Mode(shape="openai-chat", path="/v1/chat/completions", headers=headers("anthropic")),
        }

    def command(self) -> tuple[Sequence[str], dict[str, str]]:
        script = peers.portkey()
        node = shutil.which("node")
        if script is None or node is None:
            raise Skipped(peers.reason("portkey"))
        environment = _clean_environment(NODE_ENV="production", TRUSTED_CUSTOM_HOSTS="localhost,127.0.0.1")
        return [node, str(script), f"--port={self.port}", "--headless"], environment


ALL: tuple[type[Target], ...] = (Nginx, Bare, Ours, LiteLlm, Portkey)
