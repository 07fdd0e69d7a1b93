"""One process of the proxy, as far as its login: each line of input asks for a token, each line of output is one or the code of a fault.

`python gateway.py FILE CLOCK URL`
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llm_proxy.backends.logins.credential_file import CredentialFile
from llm_proxy.backends.logins.document import Unreadable
from llm_proxy.backends.logins.login import Token
from llm_proxy.backends.logins.token_endpoint import renew
from llm_proxy.backends.transport import Transport
from llm_proxy.conversation.fault import FaultError
from llm_proxy.wire.secrets import Secret


def read(members: Mapping[str, Any]) -> Token:
    try:
        return Token(access=Secret(members["access_token"]), expires=members["expires"])
    except KeyError as missing:
        raise Unreadable(f"has no {missing}") from None


async def serve(path: Path, clock: Path, url: str) -> None:
    transport = Transport(environ={})

    async def refresher(token: Secret, document: Mapping[str, Any]) -> dict[str, Any]:
        return await renew(transport, f"{url}/token", {"refresh_token": token.reveal()})

    login = CredentialFile(
        "house",
        (path,),
        read=read,
        command="house login",
        refresh_token=lambda members: Secret(members["refresh_token"]),
        refresher=refresher,
        now=lambda: float(clock.read_text()),
    )
    print("ready", flush=True)
    while await asyncio.to_thread(sys.stdin.readline):
        try:
            print((await login.token()).access.reveal(), flush=True)
        except FaultError as error:
            print(f"fault {error.fault.detail['code']} {error.fault.message}", flush=True)
    await login.close()
    await transport.close()


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]))
