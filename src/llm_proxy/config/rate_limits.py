"""The sources of `rate_limits` in order: entries by key, the names that stand for the default's values, and limits of back-ends.

Owns which back-end a key means and that all spellings of a key are one. Must not know how values are read or what is limited.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from llm_proxy.config.backends import BackendSettings
from llm_proxy.config.document import Node, Place, Problem, nearest
from llm_proxy.config.kinds import plain
from llm_proxy.config.maps import Layer

STANDS_FOR: Mapping[str, str] = {"default_rate_limit": "limit", "default_rate_window": "time_window"}
"""Options that are another name of a value of the entry `default`."""


def limit_layers(
    path: str,
    strong: Sequence[Layer],
    file: Layer,
    defaults: Mapping[str, Node],
    known: Iterable[str],
    problems: list[Problem],
) -> list[Layer]:
    """The layers of the map at `path`, the strongest first. `strong` are those of flags, of single variables and of one variable.

    `defaults` are the values in force of `STANDS_FOR`; they rank as their places say, names of their own before generic ones.
    """
    flags, *variables = (resolved(layer, path, known, problems) for layer in strong)
    file = resolved(file, path, known, problems)
    ranks = {"flag": Layer(), "env": Layer(), "file": Layer()}
    for name, node in defaults.items():
        rank = node.place.source.partition(" ")[0]
        ranks[rank if rank in ranks and not node.place.line else "file"].put("default", STANDS_FOR[name], node)
        _check_same(name, node, file, path, problems)
    return [flags, ranks["flag"], ranks["env"], *variables, ranks["file"], file]


def _check_same(name: str, node: Node, file: Layer, path: str, problems: list[Problem]) -> None:
    other = file.entries.get("default", {}).get(STANDS_FOR[name])
    if node.place.line and other is not None and plain(other) != plain(node):
        text = f"{name}: differs from {path}.default.{STANDS_FOR[name]}, which is the same option"
        problems.append(Problem(node.place, text))


def own_limits(backends: Mapping[str, BackendSettings], origins: Mapping[str, str]) -> Layer:
    """What `backends.<id>.rate_limit` says, as entries `backend:<id>`. `origins` names the source of each option."""
    layer = Layer()
    for id, backend in backends.items():
        if backend.rate_limit is not None:
            place = Place(origins[f"backends.{id}.rate_limit"])
            layer.put(f"backend:{id}", "limit", Node(backend.rate_limit.limit, place))
            layer.put(f"backend:{id}", "time_window", Node(backend.rate_limit.time_window, place))
    return layer


def resolved(layer: Layer, path: str, known: Iterable[str], problems: list[Problem]) -> Layer:
    """`layer` with each key in its one spelling. A key of an unknown back-end, or written twice, is a problem and left out."""
    found = Layer()
    for key in dict.fromkeys((*layer.places, *layer.entries)):
        place = layer.places[key]
        try:
            name = _resolve(key, known)
        except LookupError as error:
            id = str(error)
            # Where the back-end is there and its own values are wrong, that is what must be mended.
            if not any(problem.text.startswith(f"backends.{id.lower()}") for problem in problems):
                problems.append(Problem(place, _unknown(f"{path}.{key}", id, known)))
            continue
        if name in found.places:
            problems.append(Problem(place, f"duplicate key {path}.{key}: ids ignore upper and lower case"))
            continue
        found.places[name] = place
        found.entries[name] = layer.entries.get(key, {})
    return found


def _resolve(key: str, known: Iterable[str]) -> str:
    """The one spelling of `key`. Raises LookupError with the id that no back-end has."""
    form, _, rest = key.partition(":")
    match form:
        case "backend":
            if rest.lower() not in known:
                raise LookupError(rest)
            return f"backend:{rest.lower()}"
        case "model":
            for separator in ":/":
                id, mark, model = rest.partition(separator)
                if mark and model and id.lower() in known:
                    return f"model:{id.lower()}:{model}"
            raise LookupError(rest.partition(":" if ":" in rest else "/")[0])
        case _:
            return key


def _unknown(path: str, id: str, known: Iterable[str]) -> str:
    near = nearest(id.lower(), known)
    hint = f", did you mean {near}" if near else f"; known are {', '.join(known)}"
    return f'{path}: no back-end has the id "{id}"{hint}'
