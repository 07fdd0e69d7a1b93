"""The wire capture: what went to providers and what came back, as JSON Lines in a file that rotates (OPS-05, OPS-06).

`waiting` is the bounded queue that the event loop appends to, `lines` makes lines of what waits, `file` keeps the files on the disk,
`capture` is the thread between them, `reading` reads what was written. None of them knows an exchange, a client or a provider.
"""
