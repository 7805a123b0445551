"""``python -m client_sdk.cli``: the same as ``pjais``."""

from __future__ import annotations

from client_sdk.cli import main

__all__: list[str] = []

if __name__ == "__main__":
    main(prog_name="pjais")
