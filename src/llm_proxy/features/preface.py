"""A text of the proxy before a model's answer: into the first text of the first choice, or as a text of its own where there is none.

A filter of events; knows nothing of where the text comes from.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from llm_proxy.conversation.events import Cited, Delta, Event, Finish, PartEnd, PartStart, Whole
from llm_proxy.conversation.parts import Citation, Text


class Preface:
    """Puts `text` first. The parts of the answer keep their numbers."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._part = -1
        self._done = False
        self._parts = 0

    def feed(self, events: Sequence[Event]) -> Sequence[Event]:
        if self._done and self._part < 0:
            return events
        out: list[Event] = []
        for event in events:
            match event:
                case PartStart(part=part, skeleton=Text(), choice=0) if not self._done:
                    self._part, self._done = part, True
                    out += [event, Delta(part, self._text)]
                case Cited(part=part, citation=citation) if part == self._part:
                    out.append(Cited(part, self._shifted(citation)))
                case PartEnd(part=part, whole=Text() as whole) if part == self._part:
                    self._part = -1
                    out.append(PartEnd(part, self._longer(whole)))
                case Finish(choice=0) if not self._done:
                    self._done = True
                    out += [
                        PartStart(self._parts, Text("")),
                        Delta(self._parts, self._text),
                        PartEnd(self._parts, Text(self._text)),
                        event,
                    ]
                case _:
                    out.append(event)
            if isinstance(event, PartStart | Whole):
                self._parts = max(self._parts, event.part + 1)
        return out

    def close(self) -> Sequence[Event]:
        return ()

    def _longer(self, whole: Text) -> Text:
        citations = tuple(map(self._shifted, whole.citations))
        return msgspec.structs.replace(whole, text=self._text + whole.text, citations=citations)

    def _shifted(self, citation: Citation) -> Citation:
        if citation.start < 0:
            return citation
        added = len(self._text)
        end = citation.end + added if citation.end >= 0 else citation.end
        return msgspec.structs.replace(citation, start=citation.start + added, end=end)
