"""Weeks of use in minutes: a provider, clients and a proxy as three processes, and what they must come to.

`python -m tests.faults.soak` runs it and prints the figures; `tests/faults/test_soak.py` judges them.
"""
