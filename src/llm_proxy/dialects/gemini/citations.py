"""Sources and token probabilities between Gemini's shapes and the canonical ones.

Gemini counts UTF-8 bytes over the text of a candidate, everybody else code points.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from llm_proxy.conversation.parts import Citation
from llm_proxy.dialects.gemini.wire import NAME, Object, Offsets, integer


def read_citations(found: Iterable[Object], text: str) -> list[Citation]:
    """Citations of `groundingMetadata` and `citationMetadata` objects; offsets count in `text`."""
    offsets = Offsets(text)
    out: list[Citation] = []
    for entry in found:
        grounding = entry.get("groundingMetadata")
        if isinstance(grounding, dict):
            out += _grounding(grounding, offsets, text)
        sources = entry.get("citationMetadata")
        if isinstance(sources, dict):
            out += _sources(sources, offsets)
    return out


def _grounding(grounding: Object, offsets: Offsets, text: str) -> list[Citation]:
    chunks = [_chunk(chunk) for chunk in _objects(grounding.get("groundingChunks"))]
    out: list[Citation] = []
    used: set[int] = set()
    for support in _objects(grounding.get("groundingSupports")):
        segment = support.get("segment")
        segment = segment if isinstance(segment, dict) else {}
        cited = segment.get("text")
        cited = cited if isinstance(cited, str) else ""
        start, end = _span(segment, offsets)
        if start >= 0 and cited and text[start:end] != cited:
            start, end = -1, -1
        indices = support.get("groundingChunkIndices")
        for index in indices if isinstance(indices, list) else ():
            if isinstance(index, int) and 0 <= index < len(chunks):
                used.add(index)
                url, title = chunks[index]
                out.append(Citation(url, title, start, end, cited, NAME))
    out += [Citation(url, title, origin=NAME) for index, (url, title) in enumerate(chunks) if index not in used]
    return out


def _chunk(chunk: Object) -> tuple[str, str]:
    """(address, title) of a chunk of the web, of a retrieval or of maps."""
    for kind in ("web", "retrievedContext", "maps"):
        source = chunk.get(kind)
        if isinstance(source, dict):
            url, title = source.get("uri"), source.get("title")
            return (url if isinstance(url, str) else "", title if isinstance(title, str) else "")
    return "", ""


def _sources(metadata: Object, offsets: Offsets) -> list[Citation]:
    out: list[Citation] = []
    for source in _objects(metadata.get("citationSources", metadata.get("citations"))):
        url, title = source.get("uri"), source.get("title")
        start, end = _span(source, offsets)
        out.append(
            Citation(
                url if isinstance(url, str) else "",
                title if isinstance(title, str) else "",
                start,
                end,
                origin=NAME,
            )
        )
    return out


def _span(segment: Object, offsets: Offsets) -> tuple[int, int]:
    end = integer(segment.get("endIndex"))
    if end is None:
        return -1, -1
    start = offsets.points(integer(segment.get("startIndex")) or 0)
    stop = offsets.points(end)
    return (start, stop) if 0 <= start <= stop else (-1, -1)


def _objects(value: Any) -> list[Object]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def write_grounding(found: Sequence[tuple[int, str, Citation]]) -> Object:
    """`groundingMetadata` of (byte offset of the part in the candidate's text, the part's text, citation)."""
    chunks: list[Object] = []
    numbers: dict[tuple[str, str], int] = {}
    supports: list[Object] = []
    for base, text, citation in found:
        key = (citation.url, citation.title)
        if key not in numbers:
            numbers[key] = len(chunks)
            web = {name: value for name, value in (("uri", citation.url), ("title", citation.title)) if value}
            chunks.append({"web": web})
        segment: Object = {}
        if 0 <= citation.start <= citation.end <= len(text):
            offsets = Offsets(text)
            segment = {
                "startIndex": base + offsets.bytes(citation.start),
                "endIndex": base + offsets.bytes(citation.end),
                "text": text[citation.start : citation.end],
            }
        elif citation.cited_text and citation.origin == NAME:
            segment = {"text": citation.cited_text}
        if segment:
            supports.append({"segment": segment, "groundingChunkIndices": [numbers[key]]})
    out: Object = {"groundingChunks": chunks}
    if supports:
        out["groundingSupports"] = supports
    return out


def read_logprobs(result: Object) -> tuple[Object, ...]:
    """`logprobsResult` as Chat's token entries."""
    chosen = _objects(result.get("chosenCandidates"))
    tops = _objects(result.get("topCandidates"))
    out: list[Object] = []
    for index, token in enumerate(chosen):
        entry = _token(token)
        others = tops[index].get("candidates") if index < len(tops) else None
        entry["top_logprobs"] = [_token(other) for other in _objects(others)]
        out.append(entry)
    return tuple(out)


def _token(token: Object) -> Object:
    text, probability = token.get("token"), token.get("logProbability")
    text = text if isinstance(text, str) else ""
    number = probability if isinstance(probability, int | float) and math.isfinite(probability) else 0.0
    return {"token": text, "logprob": number, "bytes": list(text.encode("utf-8", "replace"))}


def write_logprobs(tokens: Sequence[Object]) -> Object:
    """Chat's token entries as `logprobsResult`."""
    chosen = [{"token": token.get("token", ""), "logProbability": token.get("logprob", 0.0)} for token in tokens]
    out: Object = {"chosenCandidates": chosen}
    if any(token.get("top_logprobs") for token in tokens):
        out["topCandidates"] = [
            {
                "candidates": [
                    {"token": other.get("token", ""), "logProbability": other.get("logprob", 0.0)}
                    for other in _objects(token.get("top_logprobs"))
                ]
            }
            for token in tokens
        ]
    return out
