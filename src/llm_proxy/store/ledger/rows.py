"""Usage rows and audit entries as rows of tables: the columns, their order, what fits into them and how much memory one takes.

Pure. What a database cannot hold (a zero character, half a surrogate pair, a number beyond 64 bits) is replaced here, so that one odd row
never keeps the others from being written.
"""

from __future__ import annotations

import math
import sys
from typing import Any, Final

import msgspec

from llm_proxy.store.records import AuditEntry, UsageRow

DAY: Final = 86_400
_GREATEST: Final = 10**12  # a million rows of it still sum up to less than 64 bits hold
_BUCKETS_PER_E: Final = 20
_USAGE_BYTES: Final = 1_200  # measured: a row with its numbers and usual texts
_ENTRY_BYTES: Final = 900

_ROW_FIELDS: Final = tuple(field.name for field in msgspec.structs.fields(UsageRow))
_ENTRY_FIELDS: Final = tuple(field.name for field in msgspec.structs.fields(AuditEntry))
USAGE_COLUMNS: Final = ", ".join(_ROW_FIELDS)
AUDIT_COLUMNS: Final = ", ".join(_ENTRY_FIELDS)


def _insert(table: str, columns: tuple[str, ...]) -> str:
    marks = ", ".join("?" * len(columns))
    return f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({marks}) ON CONFLICT (number) DO NOTHING"


INSERT_USAGE: Final = _insert("usage", ("number", "day", "bucket", *_ROW_FIELDS))
INSERT_AUDIT: Final = _insert("audit", ("number", *_ENTRY_FIELDS))


def usage_values(number: int, row: UsageRow) -> tuple[Any, ...]:
    """The values of INSERT_USAGE."""
    found = [fitting(getattr(row, name)) for name in _ROW_FIELDS]
    return (number, int(row.time // DAY), bucket_of(row.duration_ms), *found)


def audit_values(number: int, entry: AuditEntry) -> tuple[Any, ...]:
    """The values of INSERT_AUDIT."""
    return (number, *(fitting(getattr(entry, name)) for name in _ENTRY_FIELDS))


def usage_row(values: tuple[Any, ...]) -> UsageRow:
    """The row of what USAGE_COLUMNS selected."""
    found = dict(zip(_ROW_FIELDS, values, strict=True))
    found["stream"] = bool(found["stream"])
    found["cached"] = bool(found["cached"])
    found["safeguards"] = tuple(found["safeguards"].split("\n")) if found["safeguards"] else ()
    return UsageRow(**found)


def audit_entry(values: tuple[Any, ...]) -> AuditEntry:
    """The entry of what AUDIT_COLUMNS selected."""
    return AuditEntry(**dict(zip(_ENTRY_FIELDS, values, strict=True)))


def bucket_of(duration_ms: float) -> int:
    """Durations in classes a twentieth wide each, from which percentiles are found without sorting all rows."""
    if not math.isfinite(duration_ms) or duration_ms <= 0:
        return 0
    return int(math.log1p(duration_ms) * _BUCKETS_PER_E)


def usage_bytes(row: UsageRow) -> int:
    """About what a row takes in memory."""
    return _USAGE_BYTES + len(row.requested_model) + len(row.session) + len(row.username) + len(row.project)


def audit_bytes(entry: AuditEntry) -> int:
    """About what an entry takes in memory."""
    return _ENTRY_BYTES + sys.getsizeof(entry.prompt_text) + sys.getsizeof(entry.response_text)


def fitting(value: Any) -> Any:
    """`value` as a database can hold it."""
    match value:
        case str():
            if value.isascii() and "\0" not in value:
                return value
            return value.encode("utf-8", "replace").decode().replace("\0", "\ufffd")
        case bool():
            return int(value)
        case int():
            return max(-_GREATEST, min(value, _GREATEST))
        case float():
            return value if math.isfinite(value) else None
        case tuple():
            return fitting("\n".join(text.replace("\n", " ") for text in value))
        case _:
            return value
