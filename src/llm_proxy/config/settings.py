"""The effective configuration as rooms and listings read it. Knows nothing of where it was read from but names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from pathlib import Path
from typing import Protocol, cast

import msgspec

from llm_proxy.config.backends import BackendOptions, BackendSettings, default_backend
from llm_proxy.config.groups import BackendGeneralOptions, ServerOptions
from llm_proxy.config.identity import LEAVES
from llm_proxy.config.kinds import Kind, ModelLimits, RouteSettings
from llm_proxy.config.maps import ENTRY_OPTIONS
from llm_proxy.config.options import G, Option, OptionGroup
from llm_proxy.config.sources import Sources, Stamp


class SavedValues(Protocol):
    """What commands in the chat have saved: plain values by option path, routes by name, deleted routes."""

    @property
    def values(self) -> Mapping[str, object]: ...

    @property
    def routes(self) -> Mapping[str, RouteSettings]: ...

    @property
    def deleted_routes(self) -> Set[str]: ...


class Saved(msgspec.Struct, frozen=True):
    """Saved values at one moment."""

    values: Mapping[str, object] = {}
    routes: Mapping[str, RouteSettings] = {}
    deleted_routes: frozenset[str] = frozenset()


class Row(msgspec.Struct, frozen=True):
    """One effective value: typed, with its kind for showing and its source."""

    path: str
    kind: Kind
    value: object
    source: str

    @property
    def shown(self) -> object:
        """Plain JSON data; secrets are `***`."""
        return self.kind.show(self.value)


class Settings:
    """The effective configuration: typed groups, back-ends, and where each value came from.

    `needs_restart` are the changes of a reload that are not in force, one line each. `fallback_models` are
    model names by back-end id, for when the provider's list cannot be read. `file_routes` are the failover
    routes that exist without saved state.
    """

    def __init__(
        self,
        groups: Mapping[type[OptionGroup], OptionGroup],
        backends: dict[str, BackendSettings],
        origins: Mapping[str, str],
        warnings: list[str],
        sources: Sources,
        file_routes: frozenset[str] = frozenset(),
        needs_restart: tuple[str, ...] = (),
        contents: Mapping[str, object] | None = None,
    ) -> None:
        self._groups = groups
        self._origins = origins
        self.sources = sources
        self.backends = backends
        self.warnings = warnings
        self.file_routes = file_routes
        self.needs_restart = needs_restart
        self._contents = contents or {}
        self.config_file = sources.config_file
        self.environ = sources.environment.merged
        self.fallback_models = sources.fallback_models

    def get(self, group: type[G]) -> G:
        """The options of one room."""
        return cast(G, self._groups[group])

    def content(self, path: str) -> object:
        """What the auxiliary file of the option `path` says, made by the option's own reader; None without a file."""
        return self._contents.get(path)

    @property
    def default_backend(self) -> str:
        """The id that serves requests naming none: the configured, else the first functional, else `demo`."""
        return default_backend(self.get(BackendGeneralOptions).default_backend, self.backends)

    @property
    def data_dir(self) -> Path:
        directory = self.get(ServerOptions).data_dir
        assert directory is not None, "the loader puts the user's directory here"
        return directory

    @property
    def state_file(self) -> Path:
        """Where saved state belongs: beside a file given by --config, if that can be written, else the data directory."""
        return self.sources.state_beside or self.data_dir / "state.json"

    @property
    def files(self) -> tuple[Path, ...]:
        """Every file and directory that was read or looked for."""
        return tuple(self.sources.stamps)

    @property
    def stamps(self) -> Mapping[Path, Stamp]:
        """The state of `files` just before they were read."""
        return self.sources.stamps

    def source_of(self, path: str) -> str:
        """`flag --port`, `env PROXY_PORT`, `saved state`, `config.yaml:3` or `default`."""
        return self._origins.get(path, "default")

    def entries(self) -> list[tuple[str, object, str]]:
        """Every effective value as (path, plain value, source); secrets are `***`."""
        return [(row.path, row.shown, row.source) for row in self.rows()]

    def rows(self) -> Iterator[Row]:
        """Every effective value: options, entries of maps, and the back-ends that are in use."""
        for group in self._groups.values():
            for option in group.options:
                if option.keyed:
                    yield from self._entry_rows(option, getattr(group, option.name))
                elif option.path:
                    yield Row(option.path, option.kind, getattr(group, option.name), self.source_of(option.path))
        for id, backend in self.backends.items():
            if not (backend.mentioned or backend.functional):
                continue
            for option in BackendOptions.options:
                path = f"backends.{id}.{option.path}"
                if option.name == "identity":
                    yield from self._identity_rows(backend)
                elif option.name != "api_key_env":
                    value = backend.keys if option.name == "api_keys" else getattr(backend, option.name)
                    yield Row(path, option.kind, value, self.source_of(path))

    def _identity_rows(self, backend: BackendSettings) -> Iterator[Row]:
        """A row for each leaf of its own; the others are the global ones."""
        for name, leaf in LEAVES.items():
            path = f"backends.{backend.id}.{leaf.path}"
            if path in self._origins:
                yield Row(path, leaf.kind, backend.identity.leaf(name), self.source_of(path))

    def _entry_rows(self, option: Option, entries: Mapping[str, object]) -> Iterator[Row]:
        """A row for each value that an entry sets; a row for the map itself when it is empty."""
        if not entries:
            yield Row(option.path, option.kind, entries, "default")
        for key, entry in entries.items():
            for member in ENTRY_OPTIONS[option.kind.base].options:
                path = f"{option.path}.{key}.{member.path}"
                value = getattr(entry, member.name, None)
                if value is None and isinstance(limits := getattr(entry, "limits", None), ModelLimits):
                    value = getattr(limits, member.name, None)
                if value is not None:
                    yield Row(path, member.kind, value, self.source_of(path))
