"""The options of the wire capture (OPS-05, OPS-06). What they do is the business of `store/capture`."""

from __future__ import annotations

from pathlib import Path

from llm_proxy.config.kinds import DATA_FILE
from llm_proxy.config.options import OptionGroup, option


class CaptureOptions(OptionGroup, path="logging", title="Wire capture"):
    capture_file: Path | None = option(
        None,
        env="CAPTURE_FILE",
        flag="--capture-file",
        value_name="FILE",
        item=DATA_FILE,
        help="file that gets every request to a provider and its answer; a relative one lies in the data directory",
    )
    capture_buffer_size: int = option(
        65536,
        env="CAPTURE_BUFFER_SIZE",
        flag="--capture-buffer-size",
        minimum=1024,
        unit="bytes",
        help="so much waiting is written at once, without waiting for the flush interval",
    )
    capture_flush_interval: float = option(
        1.0,
        env="CAPTURE_FLUSH_INTERVAL",
        flag="--capture-flush-interval",
        above=0,
        unit="seconds",
        help="longest time that an entry waits before it is written",
    )
    capture_max_entries_per_flush: int = option(
        100,
        env="CAPTURE_MAX_ENTRIES_PER_FLUSH",
        flag="--capture-max-entries-per-flush",
        minimum=1,
        help="entries that are prepared and written together",
    )
    capture_max_bytes: int = option(
        104857600,
        env="CAPTURE_MAX_BYTES",
        flag="--capture-max-bytes",
        minimum=0,
        unit="bytes",
        help="size at which the capture file is rotated; 0 = never by size",
    )
    capture_max_files: int = option(
        5,
        env="CAPTURE_MAX_FILES",
        flag="--capture-max-files",
        minimum=0,
        help="rotated capture files that are kept",
    )
    capture_total_max_bytes: int = option(
        524288000,
        env="CAPTURE_TOTAL_MAX_BYTES",
        flag="--capture-total-max-bytes",
        minimum=0,
        unit="bytes",
        help="size of all capture files together, above which the oldest are deleted; 0 = no limit",
    )
    capture_rotate_interval_seconds: int = option(
        86400,
        env="CAPTURE_ROTATE_INTERVAL_SECONDS",
        flag="--capture-rotate-interval",
        minimum=0,
        unit="seconds",
        help="age at which the capture file is rotated; 0 = never by age",
    )
    capture_truncate_bytes: int = option(
        0,
        env="CAPTURE_TRUNCATE_BYTES",
        flag="--capture-truncate-bytes",
        minimum=0,
        unit="bytes",
        help="so much of each payload is kept; 0 = all of it",
    )
