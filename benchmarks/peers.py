"""Where other gateways are installed for comparison: in a cache folder of the user, never in the checkout, at
fixed versions.

They are installed once, on the first full run; `--no-peers` leaves them out.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import platformdirs

LITELLM = "litellm[proxy]==1.106.2"
PORTKEY = "@portkey-ai/gateway@1.15.2"
# With a newer adapter every stream of this gateway ends with status 500: it appends to the headers of a
# fetched response, which the adapter (1.19) no longer copies.
_PORTKEY_PINS = '{"private": true, "overrides": {"@hono/node-server": "1.13.8"}}'
_LIMIT = 420.0

_reasons: dict[str, str] = {}


def reason(name: str) -> str:
    """Why `name` is not to be had."""
    return _reasons.get(name, "it is not installed")


def _folder() -> Path:
    given = os.environ.get("LLM_PROXY_BENCH_CACHE")
    folder = Path(given) if given else Path(platformdirs.user_cache_dir("llm-proxy-bench"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _run(name: str, *command: str | Path, cwd: Path) -> bool:
    try:
        done = subprocess.run(
            [str(part) for part in command], cwd=cwd, capture_output=True, timeout=_LIMIT, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        _reasons[name] = f"its installation failed: {error}"
        return False
    if done.returncode:
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        _reasons[name] = f"its installation failed: {lines[-1][:200] if lines else 'no message'}"
        return False
    return True


def _is_new(folder: Path, wanted: str) -> bool:
    mark = folder / "installed.txt"
    return not mark.exists() or mark.read_text() != wanted


def litellm() -> Path | None:
    """LiteLLM's command, installed if need be."""
    folder = _folder() / "litellm"
    scripts = folder / ("Scripts" if sys.platform == "win32" else "bin")
    if _is_new(folder, LITELLM):
        print(f"installing {LITELLM} in {folder} (once; it takes some minutes)", flush=True)
        folder.mkdir(exist_ok=True)
        if not _run("litellm", sys.executable, "-m", "venv", folder, cwd=folder):
            return None
        if not _run("litellm", scripts / "python", "-m", "pip", "install", "--quiet", LITELLM, cwd=folder):
            return None
        (folder / "installed.txt").write_text(LITELLM)
    return scripts / "litellm"


def portkey() -> Path | None:
    """The script that starts Portkey's gateway, installed if need be."""
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        _reasons["portkey"] = "node and npm are not installed"
        return None
    folder = _folder() / "portkey"
    if _is_new(folder, PORTKEY):
        print(f"installing {PORTKEY} in {folder} (once)", flush=True)
        folder.mkdir(exist_ok=True)
        (folder / "package.json").write_text(_PORTKEY_PINS)
        if not _run("portkey", npm, "install", "--ignore-scripts", "--no-audit", "--no-fund", PORTKEY, cwd=folder):
            return None
        (folder / "installed.txt").write_text(PORTKEY)
    return folder / "node_modules/@portkey-ai/gateway/build/start-server.js"
