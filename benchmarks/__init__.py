"""What the proxy costs: `python -m benchmarks` (or `make bench`) measures it beside nginx and other gateways,
and each of its parts alone.

Nothing here is part of the product; nothing here asserts a time. All traffic stays on the loopback interface.
"""
