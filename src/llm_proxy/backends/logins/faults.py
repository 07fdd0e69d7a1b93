"""The two errors of a login: it is not there (503), or it is there and not accepted any more (502, BE-14).

Owns kind, status, code and the beginning of the sentence. Knows no file and no vendor.
"""

from __future__ import annotations

from llm_proxy.conversation.fault import Fault, FaultError


def unusable_fault(backend: str, reason: str) -> FaultError:
    """The 503 of a login that is missing, damaged or over with nobody to renew it. `reason` names the command that mends it.

    The same answer as for a back end that is known beforehand not to be usable (RT-13): a file may go away between the two looks.
    """
    return FaultError(
        Fault(kind="unavailable", message=f"Back end {backend} is not usable: {reason}", status=503, side="proxy")
    )


def credentials_fault(backend: str, reason: str) -> FaultError:
    """The 502 of a login that the provider refuses or that could not be renewed. `reason` names the command that mends it."""
    return FaultError(
        Fault(
            kind="upstream_auth",
            message=f"Back end {backend} has no usable login: {reason}",
            status=502,
            code=f"{backend}_credentials_invalid",
            side="upstream",
        )
    )
