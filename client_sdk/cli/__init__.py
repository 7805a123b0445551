"""``pjais``: the Hub on the command line. ``device`` says what all commands share; each of the others holds a few.

::

    pjais demo                       two devices and a server, apart and equal again
    pjais init --server URL          a new Hub, the first device of a new space
    pjais invite                     on one device …
    pjais join URL CODE              … and on another
    pjais import conversations.json  pjais export hub.json
    pjais search "green tea"          pjais watch --collection memories
"""

from __future__ import annotations

import rich_click as click

from client_sdk.cli.demo import demo
from client_sdk.cli.devices import init, invite, join, status, sync
from client_sdk.cli.later import backup, doctor, restore
from client_sdk.cli.metrics import metrics
from client_sdk.cli.records import export, import_
from client_sdk.cli.search import search
from client_sdk.cli.watch import watch

__all__ = ["main"]


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="pjais-sync")
def main() -> None:
    """A Hub of personas, memories, conversations and workflows, in an encrypted file that works with no network."""


for _each in (
    demo,
    init,
    status,
    metrics,
    import_,
    export,
    watch,
    sync,
    invite,
    join,
    search,
    backup,
    restore,
    doctor,
):
    main.add_command(_each)
