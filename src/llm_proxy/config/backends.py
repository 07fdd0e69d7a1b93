"""The back-ends of a configuration: built-in ids and those of the file, each with its keys, URL and limits.

Owns the options of one instance, the variables and flags of the built-in ones, and how keys of several
sources merge. Must not know how a provider is called.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from llm_proxy.config.built_in import ALIASES, BUILT_IN, BackendType, BuiltIn, canonical
from llm_proxy.config.document import Node, Place, Problem, nearest
from llm_proxy.config.environment import Environment
from llm_proxy.config.identity import LEAVES, Identity, IdentityOptions, identity_of, missing_values, read_leaves
from llm_proxy.config.kinds import Mismatch, ModelLimits, NamedKey, RateLimit, listed, plain, read_key, show_found
from llm_proxy.config.options import Option, OptionGroup, option
from llm_proxy.wire.faults import UrlFault
from llm_proxy.wire.secrets import Secret
from llm_proxy.wire.urls import parse_base_url

ID: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


def _check_base_url(value: str) -> str | None:
    try:
        parse_base_url(value)
    except UrlFault as fault:
        return f"an http or https URL ({fault})"
    return None


class BackendOptions(OptionGroup, title="One back-end instance"):
    """The keys of `backends.<id>`."""

    type: BackendType | None = option(
        None,
        aliases=("backend_type",),
        spellings=ALIASES,
        default_text="the id when it is a type name",
        help="driver",
    )
    enabled: bool = option(True, help="false hides the back-end")
    base_url: str | None = option(
        None,
        kind="url",
        aliases=("api_url",),
        check=_check_base_url,
        default_text="the provider's own",
        help="address of the API",
    )
    api_keys: tuple[NamedKey, ...] = option(
        (), aliases=("api_key",), help="one key, a list, or a map from name to key; names appear in reports"
    )
    api_key_env: tuple[str, ...] = option(
        (), item="variable names", help="variables that hold keys, each also read with _1 to _20"
    )
    no_auth: bool = option(False, help="send no credential at all, for local servers")
    policy: Literal["round-robin", "sticky", "first"] = option(
        "round-robin", spellings={"round_robin": "round-robin"}, help="which key a request starts with"
    )
    timeout: float | None = option(
        None, above=0, unit="seconds", default_text="proxy.timeout", help="longest silence within one attempt"
    )
    connect_timeout: float | None = option(
        None, above=0, unit="seconds", default_text="proxy.connect_timeout", help="longest time to connect"
    )
    max_connections: int = option(100, minimum=1, help="idle connections kept for the next calls")
    retries: int = option(
        0, minimum=0, maximum=5, help="further attempts on the same key after errors of the connection only"
    )
    headers: dict[str, str] = option({}, kind="headers", help="headers added to each call")
    identity: dict[str, Any] = option({}, help="overrides the global `identity`, leaf by leaf")
    models: dict[str, ModelLimits] = option({}, help="known models; a list makes the catalogue final")
    default_model: str | None = option(None, help="model of requests that name none")
    default_max_tokens: int = option(
        8192, minimum=1, help="output limit where the provider demands one and the request has none"
    )
    static_route: str | None = option(None, help="model of every call of this back-end, whatever is asked for")
    fallback: dict[str, Any] | None = option(
        None, help="`backend` and `model` that are tried, once each, when a call of this back-end has failed"
    )
    rate_limit: RateLimit | None = option(
        None, help="most calls of this back-end in any `time_window` seconds, as `rate_limits.backend:<id>`"
    )
    native_responses: bool | None = option(
        None,
        default_text="true at the provider's own URL, else false",
        help="Responses clients reach /responses (type openai)",
    )
    usage_include: bool = option(True, help="ask the provider for usage in streams")
    token_path: Path | None = option(
        None,
        aliases=("openai_oauth_path", "anthropic_oauth_path", "gemini_cli_oauth_path", "qwen_oauth_path"),
        default_text="where the vendor's CLI keeps it",
        help="file with the login of the vendor's CLI, or its directory (OAuth types)",
    )
    oauth_client_id: str | None = option(
        None, help="client of the login, for a direct refresh where a type needs one (gemini-cli-oauth-personal)"
    )
    oauth_client_secret: str | None = option(None, secret=True, help="secret of that client")
    refresh: Literal["auto", "read-only"] = option(
        "auto",
        spellings={"read_only": "read-only"},
        help="`read-only` never renews a login and never writes its file; the vendor's CLI does (OAuth types)",
    )
    macos_keychain: bool = option(False, help="read the login from the macOS keychain (anthropic-oauth)")
    daily_request_limit: int = option(
        1000, minimum=0, help="requests a day, with warnings at 70, 80 and 90 %; 0 = off (gemini-cli-oauth-personal)"
    )
    gcp_project_id: str | None = option(
        None, help="billed project (gemini-cli-cloud-project) [env: GOOGLE_CLOUD_PROJECT]"
    )
    credentials_path: Path | None = option(
        None,
        default_text="Application Default Credentials",
        help="credentials file (gemini-cli-cloud-project) [env: GOOGLE_APPLICATION_CREDENTIALS]",
    )
    project_dir: Path | None = option(
        None,
        default_text="the current directory",
        help="where the agent works (gemini-cli-acp) [env: GEMINI_CLI_WORKSPACE]",
    )
    gemini_cli_executable: str = option(
        "gemini", help="program of the Gemini CLI (gemini-cli-acp, gemini-cli-oauth-personal)"
    )
    model: str = option("gemini-2.5-flash", help="model of the agent where a request names none (gemini-cli-acp)")
    auto_accept: Literal["safe"] | bool = option(
        "safe",
        words=("safe",),
        help="what the agent may do unasked: `safe` refuses dangerous commands and paths outside its directory (gemini-cli-acp)",
    )
    sandbox: Literal["auto", "off", "required"] = option(
        "auto",
        help="walls around the agent: as far as the host allows, none, or no agent without them (gemini-cli-acp)",
    )
    process_timeout: float = option(
        300.0, above=0, unit="seconds", help="longest silence of the agent (gemini-cli-acp)"
    )
    idle_timeout: float = option(
        3600.0, above=0, unit="seconds", help="an agent idle for so long is ended (gemini-cli-acp)"
    )


class Fallback(msgspec.Struct, frozen=True):
    """What is tried after a back-end of which a call has failed."""

    backend: str
    model: str


class BackendSettings(msgspec.Struct, frozen=True, kw_only=True):
    """One back-end instance, ready to be used. Times in seconds.

    `base_url` is None where the type's own address applies. `mentioned`: the user named this id in a source
    or as default. `borrowed_key`: the keys are those of another id, so it is used only when mentioned.
    `pinned`: `models` is the whole catalogue.
    """

    id: str
    type: str
    enabled: bool = True
    mentioned: bool = False
    base_url: str | None = None
    keys: tuple[NamedKey, ...] = ()
    borrowed_key: bool = False
    no_auth: bool = False
    policy: str = "round-robin"
    timeout: float = 300.0
    connect_timeout: float = 10.0
    max_connections: int = 100
    retries: int = 0
    headers: Mapping[str, str] = {}
    identity: Identity = Identity()
    models: Mapping[str, ModelLimits] = {}
    pinned: bool = False
    default_model: str | None = None
    default_max_tokens: int = 8192
    static_route: str | None = None
    fallback: Fallback | None = None
    rate_limit: RateLimit | None = None
    native_responses: bool | None = None
    usage_include: bool = True
    token_path: Path | None = None
    oauth_client_id: str | None = None
    oauth_client_secret: Secret | None = None
    refresh: str = "auto"
    macos_keychain: bool = False
    daily_request_limit: int = 1000
    gcp_project_id: str | None = None
    credentials_path: Path | None = None
    project_dir: Path | None = None
    gemini_cli_executable: str = "gemini"
    model: str = "gemini-2.5-flash"
    auto_accept: str | bool = "safe"
    sandbox: str = "auto"
    process_timeout: float = 300.0
    idle_timeout: float = 3600.0

    @property
    def login(self) -> str:
        """What a person runs to log in; "" for types that use a key or nothing."""
        return BUILT_IN[self.type].login

    @property
    def functional(self) -> bool:
        """Usable as configured: enabled and holding a credential, or needing none. Of a login nothing but its mention is known here: the
        back end itself reads it.
        """
        if not self.enabled:
            return False
        if self.login:
            return self.mentioned
        if self.type == "demo" or self.no_auth:
            return True
        return bool(self.keys) and (self.mentioned or not self.borrowed_key)


class BackendSources(msgspec.Struct):
    """What the sources say of back-ends: per id, key of the instance -> node, the strongest source first."""

    flags: dict[str, Node]
    sets: dict[str, dict[str, Node]]
    generic: dict[str, dict[str, Node]]
    file: dict[str, Node]
    instances: dict[str, Node]
    environment: Environment

    def ids(self) -> list[str]:
        """The file's order, then the files of one back-end each, then other sources, then the built-in ids."""
        return list(dict.fromkeys([*self.file, *self.instances, *self.sets, *self.generic, *BUILT_IN]))

    def mentions(self, id: str) -> bool:
        return any(id in named for named in (self.file, self.instances, self.sets, self.generic))


class BackendReader:
    """Reads every back-end; collects problems, warnings and the source of each value."""

    def __init__(
        self,
        sources: BackendSources,
        file_directory: Path,
        timeouts: tuple[float, float],
        identity: IdentityOptions,
        problems: list[Problem],
        warnings: list[str],
    ) -> None:
        self.sources = sources
        self.identity = identity
        self.directory = file_directory
        self.timeout, self.connect_timeout = timeouts
        self.problems = problems
        self.warnings = warnings
        self.origins: dict[str, str] = {}

    def read(self, default: str | None) -> dict[str, BackendSettings]:
        """All back-ends by id. `default` is the id configured as default, which counts as a mention."""
        found: dict[str, BackendSettings] = {}
        for id in self.sources.ids():
            if settings := self.read_one(id, mentioned=self.sources.mentions(id) or id == default):
                found[id] = settings
        return found

    def read_one(self, id: str, mentioned: bool) -> BackendSettings | None:
        path = f"backends.{id}"
        file = self.sources.file.get(id) or self.sources.instances.get(id)
        top = (file.key_place or file.place) if file else Place(path)
        if not ID.fullmatch(id):
            self.problems.append(Problem(top, f"{path}: expected an id of letters, digits, '.', '_' and '-'"))
            return None
        built_in = BUILT_IN.get(id, BuiltIn())
        members = self._file_members(id)
        values: dict[str, Any] = {}
        for declared in BackendOptions.options:
            if declared.name not in ("api_keys", "identity"):
                values[declared.name] = self._read_option(id, declared, built_in, members)
        type_ = values["type"] or (id if id in BUILT_IN else None)
        if type_ is None:
            if not self._invalid(f"{path}.type"):
                expected = f"{path}.type: missing; one of {', '.join(BUILT_IN)}"
                self.problems.append(Problem(top, expected))
            return None
        keys, borrowed = self._read_keys(id, type_, built_in, members, values)
        self._check_headers(id, type_, values["headers"], members)
        models = _find(members, "models")
        return BackendSettings(
            id=id,
            type=type_,
            mentioned=mentioned,
            keys=keys,
            borrowed_key=borrowed,
            identity=self._read_identity(id, members),
            fallback=self._read_fallback(id, built_in, members),
            pinned=models is not None and isinstance(models.value, list) and bool(models.value),
            timeout=values["timeout"] or self.timeout,
            connect_timeout=values["connect_timeout"] or BUILT_IN[type_].connect_timeout or self.connect_timeout,
            **{name: values[name] for name in _PLAIN},
        )

    def _file_members(self, id: str) -> dict[str, Node]:
        """The members of the configuration file's entry over those of the back-end's own file, leaf by leaf."""
        main = self._members_of(id, self.sources.file.get(id))
        below = self._members_of(id, self.sources.instances.get(id))
        for name, node in below.items():
            main[name] = _merged(main[name], node) if name in main else node
        return main

    def _members_of(self, id: str, node: Node | None) -> dict[str, Node]:
        """The members of one entry by option path, after refusing unknown ones and contradicting aliases."""
        if node is None or node.value is None:
            return {}
        path = f"backends.{id}"
        if not isinstance(node.value, dict):
            self.problems.append(Problem(node.place, f"{path}: expected a map, got {show_found(node)}"))
            return {}
        known = [name for declared in BackendOptions.options for name in declared.paths]
        for name, member in node.value.items():
            if name not in known:
                near = nearest(name, known)
                hint = f", did you mean {path}.{near}" if near else ""
                place = member.key_place or member.place
                self.problems.append(Problem(place, f"unknown key {path}.{name}{hint}"))
        found: dict[str, Node] = {}
        for declared in BackendOptions.options:
            given = [name for name in declared.paths if name in node.value]
            if given:
                found[declared.path] = node.value[given[0]]
            if len(given) > 1 and plain(node.value[given[0]]) != plain(node.value[given[1]]):
                place = node.value[given[1]].place
                text = f"{path}.{given[1]}: differs from {path}.{given[0]}, which is the same option"
                self.problems.append(Problem(place, text))
        return found

    def _layers(
        self, id: str, declared: Option, built_in: BuiltIn, members: Mapping[str, Node]
    ) -> Iterator[Node | None]:
        """The nodes of one option, the strongest source first."""
        if declared.name == "base_url" and built_in.url_flag:
            yield self.sources.flags.get(built_in.url_flag)
        yield _find(self.sources.sets.get(id, {}), *declared.paths)
        if declared.name == "base_url" and built_in.url_env:
            yield self.sources.environment.find((built_in.url_env,))
        if declared.name == "timeout":
            yield self.sources.environment.find((re.sub(r"[^A-Z0-9]", "_", id.upper()) + "_TIMEOUT",))
        variable = built_in.option_env.get(declared.name, "")
        # The vendors' CLIs read these too; what a file says of the proxy's agent counts more (configuration.md, row "ACP workspace").
        late = declared.name == "project_dir"
        if variable and not late:
            yield self.sources.environment.find((variable,))
        yield _find(self.sources.generic.get(id, {}), *declared.paths)
        yield _find(members, *declared.paths)
        if variable and late:
            yield self.sources.environment.find((variable,))

    def _read_option(self, id: str, declared: Option, built_in: BuiltIn, members: Mapping[str, Node]) -> object:
        path = f"backends.{id}.{declared.path}"
        chosen: object = declared.default
        self.origins[path] = "default"
        for node in self._layers(id, declared, built_in, members):
            if node is None:
                continue
            try:
                value = declared.kind.read(node, self.directory)
            except Mismatch as mismatch:
                self._refuse(path, mismatch, hidden=declared.kind.base == "headers")
                continue
            if self.origins[path] == "default":
                chosen, self.origins[path] = value, node.place.short
        return chosen

    def _read_fallback(self, id: str, built_in: BuiltIn, members: Mapping[str, Node]) -> Fallback | None:
        """The back-end and model to try next; both must be given and the back-end must exist."""
        declared = next(option for option in BackendOptions.options if option.name == "fallback")
        maps = (node for node in self._layers(id, declared, built_in, members) if node and isinstance(node.value, dict))
        node = next(maps, None)
        if node is None or not isinstance(node.value, dict):
            return None
        path, known = f"backends.{id}.fallback", self.sources.ids()
        for name, member in node.value.items():
            if name not in Fallback.__struct_fields__:
                self.problems.append(Problem(member.key_place or member.place, f"unknown key {path}.{name}"))
        texts: list[str] = []
        for name in Fallback.__struct_fields__:
            found = node.value.get(name, Node(None, node.place))
            if not isinstance(found.value, str) or not found.value:
                self._refuse(f"{path}.{name}", Mismatch("text, in quotes", found))
            elif name == "backend" and canonical(found.value) not in known:
                near = nearest(found.value.lower(), known)
                hint = f", did you mean {near}" if near else f"; known are {', '.join(known)}"
                self.problems.append(Problem(found.place, f'{path}: no back-end has the id "{found.value}"{hint}'))
            else:
                texts.append(found.value)
        return Fallback(canonical(texts[0]), texts[1]) if len(texts) == 2 else None

    def _read_identity(self, id: str, members: Mapping[str, Node]) -> Identity:
        """The global identity with the leaves that this back-end has of its own."""
        prefix = f"backends.{id}"
        layers = [
            read_leaves(_find(layer, "identity"), f"{prefix}.identity", self.problems)
            for layer in (self.sources.sets.get(id, {}), self.sources.generic.get(id, {}), members)
        ]
        values: dict[str, Any] = {leaf.path: getattr(self.identity, leaf.name) for leaf in LEAVES.values()}
        places: dict[str, Place] = {}
        for name, declared in LEAVES.items():
            path = f"{prefix}.{declared.path}"
            for node in (layer[name] for layer in layers if name in layer):
                try:
                    value = declared.kind.read(node, self.directory)
                except Mismatch as mismatch:
                    self._refuse(path, mismatch)
                    continue
                if declared.path not in places:
                    values[declared.path], places[declared.path] = value, node.place
                    self.origins[path] = node.place.short
        identity = identity_of(values)
        for path, expected in missing_values(identity):
            if path in places and not self._invalid(f"{prefix}.{expected.split()[0]}"):
                self.problems.append(Problem(places[path], f"{prefix}.{path}: expected {prefix}.{expected}"))
        return identity

    def _read_keys(
        self, id: str, type_: str, built_in: BuiltIn, members: Mapping[str, Node], values: Mapping[str, Any]
    ) -> tuple[tuple[NamedKey, ...], bool]:
        """Keys in the order flag, environment, file, `api_key_env`; whether they belong to another id."""
        environment = self.sources.environment
        sets, generic = self.sources.sets.get(id, {}), self.sources.generic.get(id, {})
        own: list[tuple[str, Node]] = []
        if flag := self.sources.flags.get(built_in.key_flag):
            own.append((built_in.key_env[0], flag))
            self.warnings.append(f"{flag.place}: a key on the command line is visible to other users; use a variable")
        own += self._entries(id, _find(sets, "api_keys", "api_key"))
        for name in built_in.key_env:
            own += environment.numbered(name)
        own += self._entries(id, _find(generic, "api_keys", "api_key"))
        file = _find(members, "api_keys", "api_key")
        if file is not None and (entries := self._entries(id, file)):
            if not own:
                own += entries
            self._warn_of_literals(id, entries)
        for name in values["api_key_env"]:
            own += environment.numbered(name)
        keys = self._clean(id, type_, own, values["base_url"])
        if keys or not (built_in.borrowed_env or built_in.borrowed_flag):
            return keys, False
        borrowed: list[tuple[str, Node]] = []
        if flag := self.sources.flags.get(built_in.borrowed_flag):
            borrowed.append((built_in.borrowed_env[0], flag))
        for name in built_in.borrowed_env:
            borrowed += environment.numbered(name)
        return self._clean(id, type_, borrowed, values["base_url"], quiet=True), True

    def _entries(self, id: str, node: Node | None) -> list[tuple[str, Node]]:
        """Name and node of each entry of `api_keys`."""
        if node is None:
            return []
        if isinstance(node.value, dict):
            return list(node.value.items())
        try:
            items = listed(node, "a key, a list of keys, or a map from name to key")
        except Mismatch as mismatch:
            self._refuse(f"backends.{id}.api_keys", mismatch, hidden=True)
            return []
        return [(f"{id}#{position}", item) for position, item in enumerate(items, 1)]

    def _clean(
        self, id: str, type_: str, entries: list[tuple[str, Node]], url: str | None, quiet: bool = False
    ) -> tuple[NamedKey, ...]:
        """Entries without blanks, quotes, placeholders and repetitions."""
        path = f"backends.{id}.api_keys"
        found: dict[str, NamedKey] = {}
        origins: list[str] = []
        for name, node in entries:
            if node.value is None:
                continue
            try:
                if not isinstance(node.value, str):
                    raise Mismatch("a key as text, in quotes", node)
                value = read_key(node)
            except Mismatch as mismatch:
                # The owner of a borrowed key has already reported it.
                if not quiet:
                    self._refuse(path, mismatch, hidden=True)
                continue
            if not value or is_placeholder(value):
                if not quiet:
                    kind = "a placeholder, not a key" if value else "empty"
                    self.warnings.append(f"{node.place}: {path}: {name} is {kind}; it is ignored")
            elif value not in found:
                found[value] = NamedKey(name, Secret(value))
                origins.append(node.place.short)
                owner = _owner_of(value)
                if owner and owner != type_ and url is None and not quiet:
                    self.warnings.append(f"{node.place}: {path}: {name} looks like a key of {owner}")
        if origins:
            self.origins[path] = ", ".join(dict.fromkeys(origins))
        else:
            self.origins.setdefault(path, "default")
        return tuple(found.values())

    def _warn_of_literals(self, id: str, entries: list[tuple[str, Node]]) -> None:
        for _, node in entries:
            if isinstance(node.value, str) and not node.reference and not is_placeholder(node.value.strip()):
                advice = "a key stands in the file; write ${NAME} instead, or use api_key_env"
                self.warnings.append(f"{node.place}: backends.{id}.api_keys: {advice}")
                return

    def _check_headers(self, id: str, type_: str, headers: Mapping[str, str], members: Mapping[str, Node]) -> None:
        own = BUILT_IN[type_].credential_header
        forbidden = {built_in.credential_header for built_in in BUILT_IN.values()} - {own, ""}
        for name in headers:
            if name.lower() in forbidden | _FRAMING_HEADERS:
                node = _find(members, "headers")
                inner = node.value.get(name) if node is not None and isinstance(node.value, dict) else None
                place = (inner.key_place or inner.place) if inner else Place(self.origins[f"backends.{id}.headers"])
                reason = "is set by the proxy" if name.lower() in _FRAMING_HEADERS else f"is no header of type {type_}"
                self.problems.append(Problem(place, f"backends.{id}.headers.{name}: this header {reason}"))

    def _invalid(self, path: str) -> bool:
        return any(problem.text.startswith(path) for problem in self.problems)

    def _refuse(self, path: str, mismatch: Mismatch, hidden: bool = False) -> None:
        found = "" if hidden else f", got {show_found(mismatch.node)}"
        self.problems.append(Problem(mismatch.node.place, f"{path}: expected {mismatch.expected}{found}"))


def default_backend(configured: str | None, backends: Mapping[str, BackendSettings]) -> str:
    """The id that serves requests without one: the configured, else the first functional, `demo` last."""
    if configured is not None:
        return canonical(configured)
    functional = [id for id, settings in backends.items() if settings.functional and settings.type != "demo"]
    return functional[0] if functional else "demo"


def is_placeholder(value: str) -> bool:
    """Whether a key is the text of an example, such as `your_key` or `<key>`."""
    lower = value.lower()
    return (
        lower.startswith(("your_", "your-"))
        or lower in {"changeme", "change-me", "change_me"}
        or (lower.startswith("<") and lower.endswith(">"))
    )


_PLAIN: Final = (
    "enabled",
    "base_url",
    "no_auth",
    "policy",
    "max_connections",
    "retries",
    "headers",
    "models",
    "default_model",
    "default_max_tokens",
    "static_route",
    "rate_limit",
    "native_responses",
    "usage_include",
    "token_path",
    "oauth_client_id",
    "oauth_client_secret",
    "refresh",
    "macos_keychain",
    "daily_request_limit",
    "gcp_project_id",
    "credentials_path",
    "project_dir",
    "gemini_cli_executable",
    "model",
    "auto_accept",
    "sandbox",
    "process_timeout",
    "idle_timeout",
)

_FRAMING_HEADERS: Final = frozenset(
    {"host", "content-length", "transfer-encoding", "connection", "content-type", "accept-encoding"}
)

_KEY_PREFIXES: Final[Mapping[str, str]] = {"sk-ant-": "anthropic", "sk-or-": "openrouter", "AIza": "gemini"}


def _owner_of(key: str) -> str | None:
    return next((owner for prefix, owner in _KEY_PREFIXES.items() if key.startswith(prefix)), None)


def _merged(strong: Node, weak: Node) -> Node:
    """Maps are merged by key; anything else is replaced as a whole."""
    if not (isinstance(strong.value, dict) and isinstance(weak.value, dict)):
        return strong
    members = dict(weak.value)
    for name, node in strong.value.items():
        members[name] = _merged(node, members[name]) if name in members else node
    return Node(members, strong.place, strong.key_place)


def _find(members: Mapping[str, Node], *names: str) -> Node | None:
    return next((members[name] for name in names if name in members), None)
