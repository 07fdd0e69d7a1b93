"""A vendor's CLI that knows of nobody else: logs in, renews, and writes its file in place or whole, until it is killed.

`python cli.py FILE CLOCK URL SEED IN_PLACE`, the last being the share of its writes that are no replacements
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import ProxyHandler, Request, build_opener

_OPEN = build_opener(ProxyHandler({})).open


def post(url: str, fields: dict[str, Any]) -> dict[str, Any] | None:
    request = Request(url, json.dumps(fields).encode(), {"content-type": "application/json"})
    try:
        with _OPEN(request, timeout=10) as answer:
            found: dict[str, Any] = json.load(answer)
            return found
    except HTTPError as error:
        error.close()
        return None


def write(path: Path, document: dict[str, Any], dice: random.Random, in_place: float) -> None:
    text = json.dumps(document)
    if dice.random() < in_place:
        with path.open("w") as file:
            file.write(text[: len(text) // 2])
            file.flush()
            time.sleep(dice.random() * 0.01)
            file.write(text[len(text) // 2 :])
        return
    other = path.with_name("the-cli-s-own-copy")
    other.write_text(text)
    other.chmod(0o600)
    os.replace(other, path)


def act(path: Path, clock: Path, url: str, dice: random.Random, in_place: float) -> None:
    if dice.random() < 0.3:
        found = post(f"{url}/login", {})
    else:
        try:
            document = json.loads(path.read_text())
        except ValueError:
            return
        if document["expires"] > float(clock.read_text()):
            return
        found = post(f"{url}/token", {"refresh_token": document["refresh_token"]})
    if found is not None:
        write(path, {"of": "the CLI"} | found, dice, in_place)


def main(path: str, clock: str, url: str, seed: str, in_place: str) -> None:
    dice = random.Random(int(seed))
    print("ready", flush=True)
    while True:
        time.sleep(dice.random() * 0.01)
        act(Path(path), Path(clock), url, dice, float(in_place))


if __name__ == "__main__":
    main(*sys.argv[1:])
