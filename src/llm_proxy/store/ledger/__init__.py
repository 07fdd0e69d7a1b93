"""Usage and audit in a database: SQLite unless another one is named. See `ledger.py`."""

from llm_proxy.store.ledger.choice import Ledgers
from llm_proxy.store.ledger.ledger import Ledger

__all__ = ["Ledger", "Ledgers"]
