"""The configuration read again while the proxy runs: all of it anew, or only saved state over the same files.

Owns what a change may touch without a restart and how changes are told. Swapping the new settings in is the
business of the server.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from llm_proxy.config.kinds import as_yaml
from llm_proxy.config.load import assemble, with_core
from llm_proxy.config.options import OptionGroup
from llm_proxy.config.settings import Row, Saved, SavedValues, Settings
from llm_proxy.config.sources import Sources


class Reloader:
    """Makes settings from the sources of one start, as often as wanted.

    The first settings that it makes are those the process runs with: options that need a restart keep their
    values from there, and `Settings.needs_restart` says so.
    """

    def __init__(
        self,
        argv: Sequence[str],
        environ: Mapping[str, str],
        cwd: Path,
        groups: Sequence[type[OptionGroup]],
    ) -> None:
        self._argv = tuple(argv)
        self._environ = dict(environ)
        self._cwd = cwd
        self._groups = with_core(groups)
        self._running: Settings | None = None

    def load(self, saved: SavedValues | None = None) -> Settings:
        """Reads everything anew. Raises `ConfigError`, and then nothing has changed."""
        sources = Sources(self._argv, self._environ, self._cwd, self._groups)
        settings = assemble(sources, saved or Saved(), self._running)
        self._running = self._running or settings
        return settings

    def with_saved(self, settings: Settings, saved: SavedValues) -> Settings:
        """`settings` with what is saved now, made from the same sources: the disk is not touched."""
        return assemble(settings.sources, saved, self._running)


def changed_paths(old: Settings, new: Settings) -> list[str]:
    """One line `path: old -> new` for each effective value that differs; secrets are `***`."""
    before = {row.path: row for row in old.rows()}
    after = {row.path: row for row in new.rows()}
    lines: list[str] = []
    for path in dict.fromkeys([*before, *after]):
        was, now = before.get(path), after.get(path)
        if was is not None and now is not None:
            # Where both are defaults, one follows from another option, which is told itself.
            if was.value != now.value and (was.source, now.source) != ("default", "default"):
                lines.append(f"{path}: {_shown(was)} -> {_shown(now)}")
        elif now is not None and now.source != "default":
            lines.append(f"{path}: nothing -> {_shown(now)}")
        elif was is not None and was.source != "default":
            lines.append(f"{path}: {_shown(was)} -> nothing")
    return lines


def _shown(row: Row) -> str:
    return as_yaml(row.shown)
