"""What can go wrong with what is installed only on request: the package is not there."""

from __future__ import annotations

from client_sdk.errors import ClientError

__all__ = ["ExtraMissing"]


class ExtraMissing(ClientError, ImportError):
    """An extra was not installed. ``extra`` says which."""

    def __init__(self, extra: str, package: str) -> None:
        super().__init__(f"{package} is not installed: pip install 'pjais-sync[{extra}]'")
        self.extra = extra
