"""The vendors behind the login back ends, at their own addresses, for a proxy process in which nothing is replaced.

Owns the token services and APIs that answer by their host names, and the logins in a home directory. Judges only that every vendor is
called where the specification says.
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import pytest

from tests.backends.logins.code_assist_server import refusal
from tests.backends.logins.vendor import fields_of, jwt
from tests.e2e.asking import Scene, say
from tests.e2e.calling import Turn, reply, stream_of
from tests.e2e.keeping import until
from tests.e2e.test_login_back_ends import chatgpt, claude
from tests.e2e.test_login_relay import relayed
from tests.server.process import Answer, running
from tests.support import sdk
from tests.support.upstream import Moment, Pause, Received, Reply, Upstream, upstream_in_thread

CHATGPT, CLAUDE, QWEN = "openai-oauth", "anthropic-oauth", "qwen-oauth"
PERSONAL, CLOUD = "gemini-cli-oauth-personal", "gemini-cli-cloud-project"
BACK_ENDS: Final = (CHATGPT, CLAUDE, QWEN, PERSONAL, CLOUD)
MODELS: Final = {
    CHATGPT: "gpt-5-codex", CLAUDE: "claude-sonnet-4-5", QWEN: "qwen3-coder-plus", PERSONAL: "gemini-2.5-pro", CLOUD: "gemini-2.5-pro",
}  # fmt: skip
COMMANDS: Final = {
    CHATGPT: "codex login", CLAUDE: "claude /login", QWEN: "qwen", PERSONAL: "gemini", CLOUD: "gcloud auth application-default login",
}  # fmt: skip
CALLED_AT: Final = {
    CHATGPT: ("chatgpt.com", "/backend-api/codex/responses"),
    CLAUDE: ("api.anthropic.com", "/v1/messages"),
    QWEN: ("portal.qwen.ai", "/v1/chat/completions"),
    PERSONAL: ("cloudcode-pa.googleapis.com", "/v1internal:streamGenerateContent"),
    CLOUD: ("cloudcode-pa.googleapis.com", "/v1internal:streamGenerateContent"),
}
RENEWED_AT: Final = {
    CHATGPT: ("auth.openai.com", "/oauth/token"),
    CLAUDE: ("console.anthropic.com", "/v1/oauth/token"),
    QWEN: ("chat.qwen.ai", "/api/v1/oauth2/token"),
    PERSONAL: ("oauth2.googleapis.com", "/token"),
    CLOUD: ("oauth2.googleapis.com", "/token"),
}
PLATFORM: Final = ("api.openai.com", "/v1/responses")
HOSTS: Final = sorted({host for host, _ in (*CALLED_AT.values(), *RENEWED_AT.values(), PLATFORM)})
SPARE: Final = "spare"
"""A back end with an API key of its own, at a plain address."""

SECRET_OF_CLIENT: Final = "canary-client-secret"

_NUMBERS = itertools.count(1)


# The vendors


def answers(kind: str, turn: Turn) -> Callable[[Received], Reply]:
    """The API of a vendor saying `turn`; it refuses what the real one refuses."""
    match kind:
        case "openai-oauth":
            return chatgpt(turn)
        case "anthropic-oauth":
            return claude(turn)
        case "qwen-oauth":
            return lambda request: reply("openai-chat", turn, request.json.get("stream") is True)
    return lambda request: Reply.sse(*enveloped(turn))


def enveloped(turn: Turn) -> list[bytes]:
    """The frames of a stream of Code Assist."""
    chunks = (json.loads(frame.removeprefix(b"data: ")) for frame in stream_of("gemini", turn))
    return [b"data: " + json.dumps({"response": chunk, "traceId": "t"}).encode() + b"\r\n\r\n" for chunk in chunks]


def beginning(kind: str, turn: Turn) -> list[bytes]:
    """The frames of a vendor's stream."""
    match kind:
        case "openai-oauth":
            return stream_of("openai-responses", turn)
        case "anthropic-oauth":
            return stream_of("anthropic-messages", turn)
        case "qwen-oauth":
            return stream_of("openai-chat", turn)
    return enveloped(turn)


def unauthorised(kind: str, shown: str) -> Reply:
    """What the vendor says to a token that it does not take; each quotes it, as some services do."""
    match kind:
        case "openai-oauth":
            error = {"message": f"Your authentication token {shown} has been invalidated.", "code": "token_invalidated"}
            return Reply.json({"error": error}, 401)
        case "anthropic-oauth":
            error = {"type": "authentication_error", "message": f"OAuth token {shown} has expired."}
            return Reply.json({"type": "error", "error": error}, 401)
        case "qwen-oauth":
            error = {"message": f"invalid access token {shown} or token expired", "code": "invalid_api_key"}
            return Reply.json({"error": error}, 401)
    return refusal(401, "UNAUTHENTICATED", f"Request had invalid authentication credentials: {shown}.")


LOADED: Final = {"currentTier": {"id": "standard-tier"}, "cloudaicompanionProject": "project-1"}


@dataclass
class Account:
    """One login: its file, its tokens, and what its vendor was asked for it.

    `good` are the access tokens that the API takes, `refresh` the refresh token that is not spent. `revoked`: the answer to every renewal;
    `held`: renewals are done at once but answered at that moment. `host`: where its calls arrive.
    """

    id: str
    kind: str
    path: Path
    issued: list[str] = field(default_factory=list)
    model: str = ""
    good: set[str] = field(default_factory=set)
    access: str = ""
    refresh: str = ""
    lasts: float = 3600.0
    answer: Callable[[Received], Reply] = say
    revoked: Reply | None = None
    held: Moment | None = None
    host: str = ""
    calls: list[Received] = field(default_factory=list)
    renewals: list[Received] = field(default_factory=list)
    account_calls: list[Received] = field(default_factory=list)
    onboarding: list[dict[str, Any]] = field(default_factory=list)
    loaded: dict[str, Any] = field(default_factory=lambda: LOADED)

    @property
    def target(self) -> str:
        return f"{self.id}:{self.model or MODELS[self.kind]}"

    @property
    def command(self) -> str:
        return COMMANDS[self.kind]

    def mint(self, lasts: float = 3600.0) -> str:
        """An access token that was not there before."""
        name = f"canary-access-{self.kind}-{next(_NUMBERS):05d}"
        self.access = jwt(exp=int(time.time() + lasts), planted=name) if self.kind == CHATGPT else name
        self.issued.append(self.access)
        return self.access

    def mint_refresh(self) -> str:
        self.refresh = f"canary-refresh-{self.kind}-{next(_NUMBERS):05d}"
        self.issued.append(self.refresh)
        return self.refresh

    def login(self, lasts: float = 3600.0, good: bool = True, renewable: bool = True, in_place: bool = False) -> str:
        """The user logs in with the vendor's CLI: new tokens, the old ones are over. The access token."""
        self.mint(lasts)
        self.mint_refresh()
        self.good = {self.access} if good else set()
        self.write(lasts, renewable, in_place)
        return self.access

    def write(self, lasts: float = 3600.0, renewable: bool = True, in_place: bool = False) -> None:
        """The file as the CLI leaves it, with the tokens of now."""
        text = json.dumps(self.document(lasts, renewable))
        if in_place:
            self.path.write_text(text)
            return
        draft = self.path.with_name("draft")
        draft.write_text(text)
        draft.chmod(0o600)
        draft.replace(self.path)

    def document(self, lasts: float, renewable: bool = True) -> dict[str, Any]:
        ends, refresh = int((time.time() + lasts) * 1000), {"refresh_token": self.refresh} if renewable else {}
        match self.kind:
            case "openai-oauth":
                tokens = {
                    "id_token": jwt(email="me@mail.test"),
                    "access_token": self.access,
                    **refresh,
                    "account_id": "acc-1",
                }
                return {"OPENAI_API_KEY": None, "tokens": tokens, "last_refresh": "2026-01-01T00:00:00Z", "kept": [1]}
            case "anthropic-oauth":
                renews = {"refreshToken": self.refresh} if renewable else {}
                own = {"accessToken": self.access, **renews, "expiresAt": ends, "subscriptionType": "max"}
                return {"claudeAiOauth": own, "kept": [1]}
            case "qwen-oauth":
                return {
                    "access_token": self.access,
                    **refresh,
                    "resource_url": "portal.qwen.ai",
                    "expiry_date": ends,
                    "kept": [1],
                }
            case "gemini-cli-oauth-personal":
                own = {
                    "access_token": self.access,
                    **refresh,
                    "expiry_date": ends,
                    "id_token": jwt(email="me@mail.test"),
                }
                return {**own, "kept": [1]}
        return {"type": "authorized_user", "client_id": "c", "client_secret": SECRET_OF_CLIENT, **refresh, "kept": [1]}

    @property
    def on_disk(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.path.read_text())
        return found

    def says(self, turn: Turn) -> None:
        self.answer = answers(self.kind, turn)

    def fresh(self) -> None:
        """A new login that works; the vendor says a word; what was recorded is dropped."""
        self.revoked, self.held, self.lasts, self.model = None, None, 3600.0, ""
        still = self.good if self.kind == CLOUD else set()  # a service account's tokens outlive the next ones
        self.login()
        self.good |= still
        self.says(Turn(text="All of it."))
        self.forget()

    def forget(self) -> None:
        self.calls.clear()
        self.renewals.clear()
        self.account_calls.clear()

    # The vendor's side.

    def renewed(self, request: Received, fields: dict[str, str]) -> Reply:
        self.renewals.append(request)
        if self.revoked is not None:
            return self.revoked
        if fields.get("grant_type") != "refresh_token" or fields.get("refresh_token") != self.refresh:
            return Reply.json({"error": "invalid_grant", "error_description": f"{fields} is spent"}, 400)
        self.good = {self.mint(self.lasts)}
        rotated = {} if self.kind == CLOUD else {"refresh_token": self.mint_refresh()}
        tokens = {"access_token": self.access, **rotated, "expires_in": int(self.lasts), "token_type": "Bearer"}
        answer = Reply.json({**tokens, "resource_url": "portal.qwen.ai"} if self.kind == QWEN else tokens)
        return answer if self.held is None else replace(answer, before=(Pause(self.held),))

    def called(self, request: Received, shown: str) -> Reply:
        if request.path.endswith((":loadCodeAssist", ":onboardUser")):
            self.account_calls.append(request)
            if request.path.endswith("User"):
                return Reply.json(self.onboarding.pop(0) if len(self.onboarding) > 1 else self.onboarding[0])
            return Reply.json(self.loaded) if shown in self.good else unauthorised(self.kind, shown)
        self.calls.append(request)
        return self.answer(request) if shown in self.good else unauthorised(self.kind, shown)


class World:
    """All vendors, by host name. `strange`: calls with nobody's token, or with a token at another address than its own vendor's."""

    def __init__(self) -> None:
        self.accounts: dict[str, Account] = {}
        self.strange: list[Received] = []
        self.spare: list[Received] = []

    def account(self, id: str, kind: str, path: Path) -> Account:
        account = self.accounts[id] = Account(id, kind, path)
        path.parent.mkdir(parents=True, exist_ok=True)
        account.fresh()
        return account

    @property
    def secrets(self) -> list[str]:
        """What nobody may ever see."""
        return [SECRET_OF_CLIENT, *(token for account in self.accounts.values() for token in account.issued)]

    def __call__(self, request: Received) -> Reply:
        host, path = request.header("host") or "", request.path
        if host not in HOSTS:
            self.spare.append(request)
            return say(request)
        if (host, path) in RENEWED_AT.values():
            fields = fields_of(request)
            account = self._owner(fields.get("refresh_token", ""))
            if account is not None and host == RENEWED_AT[account.kind][0]:
                return account.renewed(request, fields)
        else:
            shown = (request.header("authorization") or "").removeprefix("Bearer ") or request.header("x-api-key") or ""
            account = self._owner(shown)
            if account is not None and host == (account.host or CALLED_AT[account.kind][0]):
                return account.called(request, shown)
        self.strange.append(request)
        return Reply.json({"error": "invalid_grant"}, 400)

    def _owner(self, token: str) -> Account | None:
        return next((one for one in self.accounts.values() if token in one.issued), None)


@dataclass
class Stage(Scene):
    """The proxy, the vendors, and the logins in its home directory."""

    world: World
    home: Path
    environment: dict[str, str]

    def of(self, id: str) -> Account:
        return self.world.accounts[id]

    def post(self, path: str, body: Any, headers: Any = None) -> Answer:
        answer = super().post(path, body, headers)
        self.shows_no_secret(repr(dict(answer.headers)) + answer.body.decode())
        return answer

    def shows_no_secret(self, text: str) -> None:
        for secret in self.world.secrets:
            assert secret not in text

    def listed(self, id: str) -> dict[str, Any]:
        page = self.proxy.get("/internal/backends")
        self.shows_no_secret(page.body.decode())
        (row,) = [row for row in page.json["data"] if row["id"] == id]
        assert isinstance(row, dict)
        return row


FILES: Final = {
    CHATGPT: ".codex/auth.json",
    CLAUDE: ".claude/.credentials.json",
    QWEN: ".qwen/oauth_creds.json",
    PERSONAL: ".gemini/oauth_creds.json",
    CLOUD: "account.json",
}
OPTIONS: Final[dict[str, dict[str, Any]]] = {
    CHATGPT: {},
    CLAUDE: {},
    QWEN: {},
    PERSONAL: {"oauth_client_id": "client", "oauth_client_secret": SECRET_OF_CLIENT},
    CLOUD: {"gcp_project_id": "project-1"},
}


@contextmanager
def world_of(home: Path) -> Iterator[tuple[World, Upstream, dict[str, str]]]:
    """The vendors with one login of each kind where the CLIs keep theirs, and the environment of a proxy that reaches them."""
    world = World()
    with upstream_in_thread(world) as upstream, relayed(home, upstream.port, HOSTS) as environment:
        for kind, file in FILES.items():
            world.account(kind, kind, home / file)
        account = {"GOOGLE_APPLICATION_CREDENTIALS": str(home / FILES[CLOUD])}
        yield world, upstream, {**environment, **account, "LOG_LEVEL": "debug"}


@contextmanager
def staged(home: Path, more: Callable[[World], dict[str, Any]] = lambda world: {}) -> Iterator[Stage]:
    """The proxy at log level debug with every login switched on, a spare back end with a key, and routes to it from each login.

    `more` makes further back ends. At the end no token may stand in what the process has printed.
    """
    with world_of(home) as (world, upstream, environment):
        own = {"type": "openai", "base_url": f"{upstream.url}/v1", "api_keys": {"a": "key-of-the-spare-0001"}}
        backends = {**OPTIONS, SPARE: own, **more(world)}
        # Three for each, since a model that rests is left out of the next test.
        routes = {
            f"{id}{mark}-or-{SPARE}": {"policy": "m", "elements": [f"{id}:limited{mark}", f"{SPARE}:m"]}
            for id in BACK_ENDS
            for mark in ("", "-again", "-page")
        }
        (home / "mine.json").write_text(json.dumps({"backends": backends, "failover_routes": routes}))
        with running(home, "--config", str(home / "mine.json"), env=environment) as proxy:
            stage = Stage(proxy, upstream, world, home, environment)
            yield stage
            proxy.stop()
            assert " DEBUG " in proxy.log
            stage.shows_no_secret(proxy.log)
            assert [request.target for request in world.strange] == []
        sdk.close_clients()


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with staged(tmp_path_factory.mktemp("home")) as staged_here:
        yield staged_here


@pytest.fixture(params=BACK_ENDS)
def account(request: pytest.FixtureRequest, stage: Stage) -> Account:
    """The login of one back end, new and good, and the proxy knows it."""
    found = stage.of(request.param)
    found.fresh()
    until(lambda: stage.listed(found.id)["usable"] is True, "the new login", 2.0)
    return found


def test_a_login_is_renewed_and_used_at_its_own_vendors_addresses_by_https_only(stage: Stage, account: Account) -> None:
    account.login(lasts=-60, good=False)
    assert stage.ask("openai-chat", account.target).status == 200
    assert [(one.header("host"), one.path) for one in account.calls] == [CALLED_AT[account.kind]]
    assert [(one.header("host"), one.path) for one in account.renewals] == [RENEWED_AT[account.kind]]
    assert stage.world.strange == []
