"""From all sources to one checked `Settings`: command line > environment > saved state > file > default.

Owns the order of sources, the walk over the file's tree, and the origin of every value. Every problem is
collected before anything is refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, cast

from llm_proxy.config.backends import (
    BUILT_IN,
    BackendOptions,
    BackendReader,
    BackendSettings,
    BackendSources,
    default_backend,
)
from llm_proxy.config.document import (
    ConfigError,
    Node,
    Place,
    Problem,
    nearest,
    parse_document,
    read_document,
    resolve_references,
)
from llm_proxy.config.environment import Environment, merge_environment, read_env_file
from llm_proxy.config.flags import Flags, read_flags
from llm_proxy.config.groups import BackendGeneralOptions, LocationOptions, ServerOptions
from llm_proxy.config.kinds import Mismatch, plain, read_keys, show_found, unquote
from llm_proxy.config.location import display, find_config, find_env_file, user_directory
from llm_proxy.config.options import G, Option, OptionGroup

_STRUCTURED: Final = frozenset({"list", "keys", "headers", "models", "json"})


class Settings:
    """The effective configuration: typed groups, back-ends, and where each value came from."""

    def __init__(
        self,
        groups: Mapping[type[OptionGroup], OptionGroup],
        backends: dict[str, BackendSettings],
        origins: Mapping[str, str],
        warnings: list[str],
        config_file: Path | None,
        data_dir: Path,
        environ: Mapping[str, str],
    ) -> None:
        self._groups = groups
        self._origins = origins
        self.backends = backends
        self.warnings = warnings
        self.config_file = config_file
        self.data_dir = data_dir
        self.environ = environ

    def get(self, group: type[G]) -> G:
        """The options of one room."""
        return cast(G, self._groups[group])

    @property
    def default_backend(self) -> str:
        """The id that serves requests naming none: the configured, else the first functional, else `demo`."""
        return default_backend(self.get(BackendGeneralOptions).default_backend, self.backends)

    def source_of(self, path: str) -> str:
        """`flag --port`, `env PROXY_PORT`, `saved state`, `config.yaml:3` or `default`."""
        return self._origins.get(path, "default")

    def entries(self) -> list[tuple[str, object, str]]:
        """Every effective value as (path, plain value, source); secrets are `***`."""
        found: list[tuple[str, object, str]] = []
        for group in self._groups.values():
            for option in group.options:
                if option.path:
                    shown = option.kind.show(getattr(group, option.name))
                    found.append((option.path, shown, self.source_of(option.path)))
        for id, backend in self.backends.items():
            if not (backend.mentioned or backend.functional):
                continue
            for option in BackendOptions.options:
                path = f"backends.{id}.{option.path}"
                if option.name != "api_key_env":
                    value = backend.keys if option.name == "api_keys" else getattr(backend, option.name)
                    found.append((path, option.kind.show(value), self.source_of(path)))
        return found


def load_settings(
    argv: Sequence[str],
    environ: Mapping[str, str],
    cwd: Path,
    groups: Sequence[type[OptionGroup]],
    saved: Mapping[str, object] | None = None,
) -> Settings:
    """The settings of one start. `saved` maps option paths to plain values. Raises `ConfigError`."""
    return _Loader(argv, environ, cwd, _with_core(groups), saved or {}).load()


def _with_core(groups: Sequence[type[OptionGroup]]) -> tuple[type[OptionGroup], ...]:
    """The loader itself needs these three, whatever else is asked for."""
    return tuple(dict.fromkeys((LocationOptions, ServerOptions, BackendGeneralOptions, *groups)))


class _Loader:
    def __init__(
        self,
        argv: Sequence[str],
        environ: Mapping[str, str],
        cwd: Path,
        groups: tuple[type[OptionGroup], ...],
        saved: Mapping[str, object],
    ) -> None:
        self.cwd = cwd
        self.groups = groups
        self.saved = saved
        self.problems: list[Problem] = []
        self.warnings: list[str] = []
        self.origins: dict[str, str] = {}
        self.places: dict[str, Place] = {}
        self.by_path = {path: option for group in groups for option in group.options for path in option.paths}
        self.flags: Flags = read_flags(argv, groups, self.problems)
        self.environment: Environment = self._read_environment(environ)
        self.config_file: Path | None = None
        self.file_values: dict[str, Node] = {}
        self.file_backends: dict[str, Node] = {}
        self.set_values: dict[str, Node] = {}
        self.set_backends: dict[str, dict[str, Node]] = {}
        self.generic_values: dict[str, Node] = {}
        self.generic_backends: dict[str, dict[str, Node]] = {}

    def load(self) -> Settings:
        environment = self.environment
        self.config_file = find_config(
            self.flags.options.get("--config"),
            environment.find(("LLM_PROXY_CONFIG",)),
            self.cwd,
            environment.merged,
            self.problems,
        )
        if self.config_file is not None and self.config_file.is_file():
            self._read_file(self.config_file)
        self._place_sets()
        self._place_generic()
        groups = {group: self._read_group(group) for group in self.groups}
        backends = self._read_backends(groups)
        if self.problems:
            ordered = sorted(self.problems, key=_order)
            raise ConfigError(list(dict.fromkeys(map(str, ordered))))
        data_dir = groups[ServerOptions].data_dir  # type: ignore[attr-defined]
        return Settings(groups, backends, self.origins, self.warnings, self.config_file, data_dir, environment.merged)

    def _read_environment(self, environ: Mapping[str, str]) -> Environment:
        real = merge_environment(environ, {})
        named = self.flags.options.get("--env-file") or real.find(("LLM_PROXY_ENV_FILE",))
        path = find_env_file(named, self.cwd, self.problems)
        if path is None:
            return real
        return merge_environment(environ, read_env_file(path, self.problems, self.warnings))

    def _read_file(self, path: Path) -> None:
        tree = read_document(path, display(path, self.cwd), self.problems)
        if tree is None:
            return
        if tree.value is None:
            tree.value = {}
        if not isinstance(tree.value, dict):
            self.problems.append(Problem(tree.place, f"expected a map of options, got {show_found(tree)}"))
            return
        resolve_references(tree, self.environment.merged, "", self.problems, self.warnings)
        self._walk(tree.value, "")

    def _walk(self, members: Mapping[str, Node], prefix: str) -> None:
        for name, node in members.items():
            path = f"{prefix}.{name}" if prefix else name
            if option := self.by_path.get(path):
                self._note_file_value(option, path, node)
            elif prefix == "backends":
                self._note_backend(name, node)
            elif path == "backends" or any(known.startswith(f"{path}.") for known in self.by_path):
                if isinstance(node.value, dict):
                    self._walk(node.value, path)
                elif node.value is not None:
                    self.problems.append(Problem(node.place, f"{path}: expected a map, got {show_found(node)}"))
            else:
                hint = self._nearest(path)
                self.problems.append(Problem(node.key_place or node.place, f"unknown key {path}{hint}"))

    def _note_file_value(self, option: Option, path: str, node: Node) -> None:
        earlier = self.file_values.setdefault(option.path, node)
        if earlier is not node and plain(earlier) != plain(node):
            other = next(name for name in option.paths if name != path)
            text = f"{path}: differs from {other} in line {earlier.place.line}, which is the same option"
            self.problems.append(Problem(node.place, text))

    def _note_backend(self, name: str, node: Node) -> None:
        id = name.lower()
        if id in self.file_backends:
            place = node.key_place or node.place
            self.problems.append(Problem(place, f"duplicate key backends.{name}: ids ignore upper and lower case"))
        else:
            self.file_backends[id] = node

    def _nearest(self, path: str) -> str:
        sections = {known.rpartition(".")[0] for known in self.by_path} | {"backends"}
        near = nearest(path, [*self.by_path, *sorted(sections - {""})])
        return f", did you mean {near}" if near else ""

    def _place_sets(self) -> None:
        """Sorts `--set` values to options and back-ends; a path given twice takes the last value."""
        for path, node in self.flags.sets:
            node.value = unquote(str(node.value))
            if option := self.by_path.get(path):
                self.set_values[option.path] = node
            elif target := self._backend_target(path):
                _put(self.set_backends, *target, node)
            else:
                self.problems.append(Problem(node.place, f"unknown path {path}{self._nearest_set(path)}"))

    def _nearest_set(self, path: str) -> str:
        if path.startswith("backends."):
            id, _, key = path.removeprefix("backends.").rpartition(".")
            keys = [name for option in BackendOptions.options for name in option.paths]
            near = nearest(key, keys)
            return f", did you mean backends.{id}.{near}" if near and id else ""
        near = nearest(path, list(self.by_path))
        return f", did you mean {near}" if near else ""

    def _backend_target(self, path: str) -> tuple[str, str] | None:
        """Id and key of `backends.<id>.<key>`; an id may contain dots, a header's name follows `headers`."""
        if not path.startswith("backends."):
            return None
        rest = path.removeprefix("backends.")
        id, found, header = rest.partition(".headers.")
        if found:
            return id.lower(), f"headers.{header}"
        id, _, key = rest.rpartition(".")
        known = {name for option in BackendOptions.options for name in option.paths}
        return (id.lower(), key) if id and key in known else None

    def _place_generic(self) -> None:
        """Sorts `LLM_PROXY__A__B` to options and back-ends; dashes and dots are written `_` there."""
        declared = {_segments(path): option for path, option in self.by_path.items()}
        ids = {_flatten(id): id for id in [*BUILT_IN, *self.file_backends]}
        keys = {_flatten(name): name for option in BackendOptions.options for name in option.paths}
        for segments, node in self.environment.generic():
            if option := declared.get(segments):
                self.generic_values[option.path] = node
            elif len(segments) == 3 and segments[0] == "backends" and segments[2] in keys:
                id = ids.get(segments[1], segments[1])
                _put(self.generic_backends, id, keys[segments[2]], node)
            elif len(segments) == 4 and segments[0] == "backends" and segments[2] == "headers":
                id = ids.get(segments[1], segments[1])
                _put(self.generic_backends, id, f"headers.{segments[3].replace('_', '-')}", node)
            else:
                path = ".".join(segments)
                self.problems.append(Problem(node.place, f"unknown path {path}{self._nearest_set(path)}"))

    def _read_group(self, group: type[OptionGroup]) -> OptionGroup:
        values = {option.name: self._read_option(option) for option in group.options}
        if group is ServerOptions and values["data_dir"] is None:
            values["data_dir"] = user_directory("data", self.environment.merged)
        made = group(**values)
        for path, expected in made.conflicts():
            place = self.places.get(path, Place(self.origins.get(path, "default")))
            self.problems.append(Problem(place, f"{path}: expected {expected}"))
        return made

    def _read_option(self, option: Option) -> Any:
        """The value of the strongest source; a value that does not fit is a problem wherever it stands."""
        if option.chat_only:
            return option.default
        chosen: object = option.default
        origin: str | None = None
        for node, directory in self._candidates(option):
            if node is None:
                continue
            try:
                value = self._read_node(option, node, directory)
            except Mismatch as mismatch:
                self._refuse(option, mismatch)
                continue
            if origin is None:
                chosen, origin = value, node.place.short
                self.places[option.id] = node.place
        self.origins[option.id] = origin or "default"
        return chosen

    def _candidates(self, option: Option) -> Iterable[tuple[Node | None, Path]]:
        yield self.flags.options.get(option.id), self.cwd
        yield self.set_values.get(option.path), self.cwd
        yield self._read_variables(option), self.cwd
        yield self.generic_values.get(option.path), self.cwd
        if option.path and option.path in self.saved:
            yield _node_of(self.saved[option.path], Place("saved state")), self.cwd
        below = self.config_file.parent if self.config_file else self.cwd
        yield self.file_values.get(option.path) if option.path else None, below

    def _read_variables(self, option: Option) -> Node | None:
        """The value of an option's own variables; numbered ones and a comma list come together as a map."""
        if not option.env_numbered:
            if node := self.environment.find(option.env):
                return node
            inverted = self.environment.find(option.env_off)
            return _inverted(inverted) if inverted else None
        found: dict[str, Node] = {}
        for name in option.env_numbered:
            found |= dict(self.environment.numbered(name))
        if node := self.environment.find(option.env):
            for key in read_keys(node, "key"):
                found[key.name] = Node(key.secret.reveal(), node.place, text=True)
        if not found:
            return None
        names = ", ".join(dict.fromkeys(node.place.source.removeprefix("env ") for node in found.values()))
        return Node(dict(found), Place(f"env {names}"))

    def _read_node(self, option: Option, node: Node, directory: Path) -> object:
        if node.text and option.kind.base in _STRUCTURED and str(node.value).lstrip()[:1] in {"[", "{"}:
            trouble: list[Problem] = []
            parsed = parse_document(str(node.value), node.place.source, trouble)
            if parsed is None or trouble:
                raise Mismatch(option.kind.expected, node)
            node = Node(parsed.value, node.place)
        if not option.path and isinstance(node.value, str):
            return directory / Path(node.value).expanduser()
        return option.kind.read(node, directory)

    def _refuse(self, option: Option, mismatch: Mismatch) -> None:
        found = "" if option.kind.secret else f", got {show_found(mismatch.node)}"
        text = f"{option.path}: expected {mismatch.expected}{found}"
        place = mismatch.node.place
        if place.source == "saved state":
            self.warnings.append(f"{place}: {text}; the saved value is ignored")
        else:
            self.problems.append(Problem(place, text))

    def _read_backends(self, groups: Mapping[type[OptionGroup], OptionGroup]) -> dict[str, BackendSettings]:
        server, general = groups[ServerOptions], groups[BackendGeneralOptions]
        assert isinstance(server, ServerOptions) and isinstance(general, BackendGeneralOptions)
        sources = BackendSources(
            self.flags.providers,
            {id: _gather(members) for id, members in self.set_backends.items()},
            {id: _gather(members) for id, members in self.generic_backends.items()},
            self.file_backends,
            self.environment,
        )
        below = self.config_file.parent if self.config_file else self.cwd
        timeouts = (server.timeout, server.connect_timeout)
        reader = BackendReader(sources, below, timeouts, self.problems, self.warnings)
        default = general.default_backend
        backends = reader.read(default)
        self.origins |= reader.origins
        if default is not None:
            self._check_default(default, backends)
        return backends

    def _check_default(self, default: str, backends: Mapping[str, BackendSettings]) -> None:
        path = "default_backend"
        place = self.places[path]
        if default not in backends:
            near = nearest(default, backends)
            hint = f", did you mean {near}" if near else f"; known are {', '.join(backends)}"
            text = f'{path}: no back-end has the id "{default}"{hint}'
            # A saved choice must not keep the proxy from starting after its back-end has left the file.
            if place.source == "saved state":
                self.warnings.append(f"{place}: {text}")
            elif not any(problem.text.startswith(f"backends.{default}") for problem in self.problems):
                self.problems.append(Problem(place, text))
        elif not backends[default].functional:
            built_in = BUILT_IN.get(default)
            names = (*built_in.key_env, *built_in.borrowed_env) if built_in else ()
            advice = f"set {' or '.join(names)}" if names else f"set backends.{default}.api_key_env"
            self.warnings.append(f"{place}: {path}: {default} has no usable key; {advice}")


def _segments(path: str) -> tuple[str, ...]:
    return tuple(part.replace("-", "_") for part in path.lower().split("."))


def _flatten(name: str) -> str:
    return name.lower().replace("-", "_").replace(".", "_")


def _put(backends: dict[str, dict[str, Node]], id: str, key: str, node: Node) -> None:
    backends.setdefault(id, {})[key] = node


def _gather(members: Mapping[str, Node]) -> dict[str, Node]:
    """Single headers as one map; bracketed lists and maps in text as structure."""
    found: dict[str, Node] = {}
    headers: dict[str, Node] = {}
    for name, node in members.items():
        if name.startswith("headers."):
            headers[name.removeprefix("headers.")] = node
        elif str(node.value).lstrip()[:1] in {"[", "{"}:
            parsed = parse_document(str(node.value), node.place.source, [])
            found[name] = Node(parsed.value, node.place) if parsed else node
        else:
            found[name] = node
    if headers:
        first = next(iter(headers.values()))
        found["headers"] = Node(dict(headers), first.place)
    return found


def _inverted(node: Node) -> Node:
    opposite = {"true": "false", "1": "false", "yes": "false", "on": "false"}
    opposite |= {"false": "true", "0": "true", "no": "true", "off": "true"}
    return Node(opposite.get(str(node.value).lower(), node.value), node.place, text=True)


def _node_of(value: object, place: Place) -> Node:
    match value:
        case dict():
            return Node({str(name): _node_of(item, place) for name, item in value.items()}, place)
        case list() | tuple():
            return Node([_node_of(item, place) for item in value], place)
        case str() | int() | float() | bool() | None:
            return Node(value, place)
    raise TypeError(f"a saved value cannot be a {type(value).__name__}")


def _order(problem: Problem) -> tuple[int, str, int, int]:
    place = problem.place
    return (1 if place.line else 0, place.source if place.line else "", place.line, place.column)
