"""What a 403 is about: the proxy's own key, or only what this one request asked for.

Providers say both with the same status. A key must not be put away for all clients because one of them asked for a model that the
account has not got, for another's file, or for what moderation refuses. Sources: OpenAI and OpenRouter error references, Gemini API
troubleshooting page, Anthropic errors page, November 2026.
"""

from __future__ import annotations

import re
from typing import Literal

_MODEL = re.compile(
    r"model[_ ]not[_ ]found|(?:access|permission|entitled)[a-z ]{0,20} (?:to|for|use) (?:the |this )?(?:requested )?model"
    r"|model\b.{0,120}\b(?:does not exist|not found|not available|not allowed|not supported|not enabled|no access)",
    re.IGNORECASE,
)
_REQUEST = re.compile(
    r"moderation|flagged|content[_ ](?:policy|filter)|policy violation|violat(?:es|ed|ing|ion)\b|safety (?:system|filter|setting)"
    r"|to (?:use|access) the (?:file|cached ?content|tuned ?model|corpus)",
    re.IGNORECASE,
)


def kind_of_forbidden(code: str, message: str) -> Literal["not_found", "permission", "upstream_auth"]:
    """`not_found` for a model that this account has not got, `permission` for what this request may not, else the key's own fault."""
    text = message[:1000]
    if _MODEL.search(code) or _MODEL.search(text):
        return "not_found"
    return "permission" if _REQUEST.search(code) or _REQUEST.search(text) else "upstream_auth"
