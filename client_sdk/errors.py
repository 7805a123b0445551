"""What can go wrong on a device, and what the caller does about it.

::

    ClientError
    ├── FileProblem
    │   ├── WrongKey            the key is not the one it was made with   open it with the right key
    │   ├── DamagedFile         the key fits, the bytes do not            restore a backup, or join again
    │   ├── NotADatabase        another kind of file is at this path      choose another path
    │   ├── NewerFile           a newer version of this package wrote it  update the package
    │   ├── FileInUse           another opening holds it                  close that one, or use it
    │   ├── DeclaredOtherwise   other instances have it with other records  open it with the same ones
    │   ├── FileUnreachable     the folder or the file cannot be used     make the folder, mend its rights
    │   ├── ReadOnlyFile        it can be read, not written               make it writable
    │   ├── DiskFull            no room; nothing of the write was done    make room, then repeat the write
    │   └── DiskFailed          the system reported a disk error          look at the disk, then repeat
    ├── KeyProblem
    │   ├── KeyInvalid          not 32 bytes                              hand in 32 random bytes
    │   │   └── KeyFileInvalid  the key file is unusable, or open to all  mend it as the message says
    │   ├── KeyMissing          the file exists, its key is nowhere       bring the key back
    │   └── KeyringUnavailable  no secret store on this machine           use KeyFile(path), or pass bytes
    ├── ClosedClient            it was closed, or is closing              open it again
    ├── NotAvailable            a feature that is not built yet           do without, or update
    ├── RecordNotFound          no such record here                       insert it, or do without
    ├── DuplicateRecord         that id is taken                          update it, or leave the id out
    ├── TransactionFailed       a write in a block failed; all undone     repeat the whole block
    ├── QueryError              a wrong field, operator or type           fix the query; no SQL was run
    │   └── ReadOnlySql         SQL that would write                      use the collection's methods
    ├── ImportFailed            a file that cannot be read as records     mend the line that it names
    └── ServerProblem
        ├── NotRegistered       this device has no space yet              register(url) or join(url, code)
        ├── AlreadyRegistered   this device has a space                   use another file for another space
        ├── ServerUnreachable   nothing answers there                     go on offline; it is tried again
        ├── ServerRefused       the server said no, with a code           act on the code
        │   ├── ClientIdTaken   two histories under one client id         nothing: pending work is re-homed
        │   └── ServerLostData  the server's history starts anew          update, or join anew
        ├── ProtocolMismatch    another version of the protocol           update the older side
        ├── InvitationInvalid   mistyped, or not an invitation            copy it again
        ├── InvitationExpired   older than ten minutes                    make a new one with invite()
        ├── InvitationUsed      a device has joined with it               make a new one with invite()
        ├── SyncElsewhere       the instance that syncs has met an error  act on what it says
        └── SyncTimeout         not in step within the time               wait longer; nothing is lost

A value that does not fit its field is the kernel's `crdt.errors.ValidationError`. A bug is none of these:
it crashes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from crdt import errors as kernel

__all__ = [
    "AlreadyRegistered",
    "ClientError",
    "ClientIdTaken",
    "ClosedClient",
    "DamagedFile",
    "DeclaredOtherwise",
    "DiskFailed",
    "DiskFull",
    "DuplicateRecord",
    "FileInUse",
    "FileProblem",
    "FileUnreachable",
    "ImportFailed",
    "InvitationExpired",
    "InvitationInvalid",
    "InvitationUsed",
    "KeyFileInvalid",
    "KeyInvalid",
    "KeyMissing",
    "KeyProblem",
    "KeyringUnavailable",
    "NewerFile",
    "NotADatabase",
    "NotAvailable",
    "NotRegistered",
    "ProtocolMismatch",
    "QueryError",
    "ReadOnlyFile",
    "ReadOnlySql",
    "RecordNotFound",
    "ServerLostData",
    "ServerProblem",
    "ServerRefused",
    "ServerUnreachable",
    "SyncElsewhere",
    "SyncTimeout",
    "TransactionFailed",
    "WrongKey",
]

_PAGES_NAMED_MAX = 8  # pages: a message that lists thousands tells no more


class ClientError(Exception):
    """The base of every expected failure on a device."""


# -------------------------------------------------------------------------------------------------- the file


class FileProblem(ClientError):
    """The file, or the disk under it. ``path`` says which. Nothing was deleted."""

    def __init__(self, path: Path, message: str) -> None:
        super().__init__(message)
        self.path = path


class WrongKey(FileProblem):
    """No page of the file verifies under this key."""

    def __init__(self, path: Path) -> None:
        super().__init__(
            path,
            f"{path} does not open with this key: none of its pages verifies under it. Open it with the key "
            "that it was made with; if that is the key you gave, the file is not a database of this package",
        )


class DamagedFile(FileProblem):
    """The key is right, the bytes are not what was written. ``pages``, from 1, are known to be damaged."""

    def __init__(self, path: Path, detail: str, *, pages: Sequence[int] = ()) -> None:
        named = ", ".join(map(str, pages[:_PAGES_NAMED_MAX]))
        more = ", …" if len(pages) > _PAGES_NAMED_MAX else ""
        where = f" (damaged pages: {named}{more})" if pages else ""
        super().__init__(
            path,
            f"{path} is damaged: {detail}{where}. Keep the file, restore a backup to another path, or join the "
            "space again from a new file: the server has everything that it acknowledged",
        )
        self.detail = detail
        self.pages = tuple(pages)


class NotADatabase(FileProblem):
    """Something else is at this path."""

    def __init__(self, path: Path, what: str) -> None:
        super().__init__(path, f"{path} is not an encrypted database: it is {what}. Choose another path")
        self.what = what


class NewerFile(FileProblem):
    """A newer version of this package has written the file."""

    def __init__(self, path: Path, *, ours: int, theirs: int) -> None:
        super().__init__(
            path,
            f"{path} has format {theirs}, and this version of the package reads up to {ours}: update it",
        )
        self.ours = ours
        self.theirs = theirs


class FileInUse(FileProblem):
    """Another opening of the file holds its lock. ``pid`` is its process, where known; ``are_several`` that it shares
    the file (``multi_instance=True``). ``waited_s``: so many seconds another instance was writing.
    """

    def __init__(
        self, path: Path, *, pid: int | None, are_several: bool = False, waited_s: float | None = None
    ) -> None:
        advice = (
            ": close it there first, one opening at a time owns a file, unless all say multi_instance=True"
        )
        if are_several:
            advice = " with multi_instance=True: open it so here too, or close it there"
        elif waited_s is not None:
            advice = f", which was writing for {waited_s:g} s: keep transactions short, and repeat this one"
        holder = f"process {pid}" if pid is not None else "another process"
        super().__init__(path, f"{path} is open in {holder}{advice}")
        self.pid = pid
        self.are_several = are_several


class DeclaredOtherwise(FileProblem):
    """Other instances have the file open, and their record classes are not the ones named here."""

    def __init__(self, path: Path, collections: Sequence[str]) -> None:
        named = ", ".join(collections)
        message = f"{path} is open with other declarations of {named}: name the same record classes, or close it there"
        super().__init__(path, message)


class FileUnreachable(FileProblem):
    """The operating system does not let us at the file, or its folder is not there."""

    def __init__(self, path: Path, detail: str) -> None:
        super().__init__(
            path, f"{path} cannot be opened: {detail}. Make the folder, and give this user its rights"
        )
        self.detail = detail


class ReadOnlyFile(FileProblem):
    """The file, its folder or its file system refuses writes."""

    def __init__(self, path: Path) -> None:
        super().__init__(
            path,
            f"{path} cannot be written, and nothing was: make the file and its folder writable for this user",
        )


class DiskFull(FileProblem):
    """There was no room. The whole write was undone, and the database goes on once there is room."""

    def __init__(self, path: Path) -> None:
        super().__init__(
            path, f"no room left for {path}: the write was undone as a whole. Make room, then repeat it"
        )


class DiskFailed(FileProblem):
    """Reading or writing failed below us. The whole write was undone."""

    def __init__(self, path: Path, detail: str) -> None:
        super().__init__(
            path,
            f"the disk under {path} failed ({detail}); the write was undone as a whole. Look at the disk, then "
            "repeat it",
        )
        self.detail = detail


# --------------------------------------------------------------------------------------------------- its key


class KeyProblem(ClientError):
    """The key of the file cannot be had."""


class KeyInvalid(KeyProblem, ValueError):
    """What was handed in is no key."""


class KeyFileInvalid(KeyInvalid):
    """The key file cannot be used as it is."""

    def __init__(self, path: Path, problem: str, remedy: str) -> None:
        super().__init__(f"the key file {path} {problem}: {remedy}")
        self.path = path


class KeyMissing(KeyProblem):
    """The database exists and its key does not: making a new one would only lock it out."""

    def __init__(self, path: Path, where: str) -> None:
        super().__init__(
            f"{path} exists, but {where} holds no key for it: bring the key back, or choose another path for a "
            "new database"
        )
        self.path = path


class KeyringUnavailable(KeyProblem):
    """The operating system offers no place for secrets, or refused."""

    def __init__(self, detail: str) -> None:
        super().__init__(
            f"no secret store on this machine ({detail}): pass key=KeyFile(path) to keep the key in a file, or "
            "key= with 32 bytes of your own"
        )


# ----------------------------------------------------------------------------------------- what was asked for


class ClosedClient(ClientError):
    """It was closed."""

    def __init__(self, what: str = "this client") -> None:
        super().__init__(f"{what} is closed: open it again")


class NotAvailable(ClientError, kernel.NotAvailable):
    """A feature whose name stands but which is not built yet."""


class RecordNotFound(ClientError, LookupError):
    """There is no such record on this device, or it is deleted."""

    def __init__(self, collection: str, record_id: str) -> None:
        super().__init__(
            f"no record {record_id!r} in {collection}: insert it first, or restore it if it was deleted"
        )
        self.collection = collection
        self.record_id = record_id


class DuplicateRecord(ClientError):
    """The id of a new record is taken, perhaps by a deleted record."""

    def __init__(self, collection: str, record_id: str) -> None:
        super().__init__(f"{collection} has a record {record_id!r} already: update it, or leave the id out")
        self.collection = collection
        self.record_id = record_id


class TransactionFailed(ClientError):
    """A transaction's block could not be committed."""

    def __init__(self) -> None:
        super().__init__("the transaction was undone, as one of its writes failed: repeat the whole block")


class QueryError(ClientError, ValueError):
    """A query that cannot be meant: a field, an operator or a type that does not exist. No SQL was run."""


class ReadOnlySql(QueryError):
    """SQL that would change something."""

    def __init__(self, sql: str) -> None:
        super().__init__(
            f"this SQL would change the file, and sql() only reads: {sql.strip()[:120]!r}. Change records "
            "through their collection"
        )


class ImportFailed(ClientError):
    """A file to import cannot be read as records. ``where`` is a line or a path into it."""

    def __init__(self, file: Path | str, where: str, problem: str) -> None:
        super().__init__(
            f"{file}, {where}: {problem}. Mend it there and import again: what is in already stays once"
        )
        self.file = file
        self.where = where
        self.problem = problem


# ------------------------------------------------------------------------------------------------ the server


class ServerProblem(ClientError):
    """Work on this device goes on; what it writes waits in the outbox."""


class NotRegistered(ServerProblem):
    """This device belongs to no space yet."""

    def __init__(self) -> None:
        super().__init__(
            "this device has no space yet: register(url) makes one, join(url, code) enters an existing one"
        )


class AlreadyRegistered(ServerProblem):
    """This device belongs to a space, and a file holds one."""

    def __init__(self, space: str) -> None:
        super().__init__(f"this device is in the space {space} already: open another file for another space")
        self.space = space


class ServerUnreachable(ServerProblem):
    """Nothing that speaks the protocol answers at this address."""

    def __init__(self, url: str, detail: str) -> None:
        super().__init__(
            f"no server answers at {url} ({detail}): check the address and the network; work goes on offline"
        )
        self.url = url


class ServerRefused(ServerProblem):
    """The server said no. ``code`` is stable, ``message`` is for people."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"the server refused ({code}): {message}")
        self.code = code
        self.message = message


class ClientIdTaken(ServerRefused):
    """Another history writes under this client id (a restored copy?); pending work is moved to a new one."""

    def __init__(
        self, message: str = "another history has this client id; pending work moves to a new one"
    ) -> None:
        super().__init__("client_id_taken", message)


class ServerLostData(ServerRefused):
    """The server was restored or wiped: its history is another than the one this device has read."""

    def __init__(self, *, ours: str, theirs: str) -> None:
        super().__init__(
            "generation_changed",
            f"its history is {theirs}, this device has read {ours}. Everything here is kept: update the "
            "package, or join the new history from a new file",
        )
        self.ours = ours
        self.theirs = theirs


class ProtocolMismatch(ServerProblem, kernel.ProtocolMismatch):
    """The server speaks another version of the protocol."""


class InvitationInvalid(ServerProblem, ValueError):
    """A code that no server need be asked about: it is mistyped, cut off, or something else."""

    def __init__(self, problem: str) -> None:
        super().__init__(f"this is not a valid invitation: {problem}. Copy the whole code again")
        self.problem = problem


class InvitationExpired(ServerProblem):
    """The invitation is older than its ten minutes."""

    def __init__(self) -> None:
        super().__init__(
            "this invitation has expired after ten minutes: make a new one with invite() elsewhere"
        )


class InvitationUsed(ServerProblem):
    """A device has joined with this invitation, and each lets in one."""

    def __init__(self) -> None:
        super().__init__(
            "this invitation has been used, and lets in one device: make a new one with invite()"
        )


class SyncElsewhere(ServerProblem):
    """Another instance on this file syncs, and has met an error, which this repeats."""

    def __init__(self, message: str) -> None:
        super().__init__(f"the instance that syncs this file reports: {message}")


class SyncTimeout(ServerProblem, TimeoutError):
    """Not in step with the server within the time given."""

    def __init__(self, *, seconds: float, pending: int, behind: int) -> None:
        super().__init__(
            f"not in step after {seconds:g} s: {pending} updates wait to be sent, {behind} to be read. Nothing is lost;"
            " wait longer, or look at status.last_error"
        )
        self.pending = pending
        self.behind = behind
