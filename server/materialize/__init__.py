"""Documents out of the log: a process of its own that follows every space at its own pace. Sync never waits for it.

``python -m server.materialize`` takes the updates that each space's log has grown by, folds them record by
record, and writes documents, digest and position in one transaction: the digest is always exactly that of the
position beside it. What is in the log is true already; this process can be killed at any time, and the next
one goes on where the last commit stands.

============  ==========================================================================================
`follow`      which spaces have news, and in which order they get their turn; the process' loop
`batch`       one turn: read some log, fold, commit; and folding a space anew from its beginning
`tables`      the statements
`folding`     the process that folds, seen from here: what it does when that one dies
`worker`      the process that folds, seen from inside: limits of memory and time, then frame by frame
`fold`        one record: snapshot and updates in, snapshot, clocks, digest and JSON out
`view`        contents as JSON that Postgres takes
============  ==========================================================================================

Foreign bytes were checked before they came into the log, and are checked again against their document. Should one get
through that check and kill pycrdt all the same, it kills the worker: then the record is folded alone, update by update,
in fresh processes, until it is known which update is the poison. That one goes to ``quarantine`` with its reason, and
its record, its space and all others go on without it. Devices see the log itself, so nothing is lost by that.

Several such processes on one database share the spaces among them. This module imports nothing: the worker starts
faster, and holds nothing that hostile bytes could be after.
"""

from __future__ import annotations

__all__: list[str] = []
