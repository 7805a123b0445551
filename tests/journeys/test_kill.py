"""Processes are killed at random and nothing is lost: the short form of `tests.journeys.kill`."""

from __future__ import annotations

from pathlib import Path

from tests.journeys.kill import kill_devices, kill_postgres, kill_servers

__all__: list[str] = []


async def test_a_device_killed_while_it_writes_and_syncs_loses_no_write_that_had_returned(
    tmp_path: Path, database_url: str
) -> None:
    report = await kill_devices(tmp_path, database_url, kills=5, seed=3)
    assert report.kills == 5
    assert report.writes > 20, report
    assert report.log_rows > report.writes


async def test_a_server_killed_under_pushes_loses_no_acknowledged_update(
    tmp_path: Path, database_url: str
) -> None:
    report = await kill_servers(tmp_path, database_url, kills=2)
    assert (report.kills, len(report.recovery_s)) == (2, 2)
    assert report.acknowledged == report.log_rows > 50


async def test_a_postgres_killed_under_pushes_loses_no_acknowledged_update_and_the_server_lives_on(
    cluster_folder: Path,
) -> None:
    cluster_folder.mkdir()
    report = await kill_postgres(cluster_folder, kills=4)
    assert (report.kills, len(report.recovery_s)) == (4, 4)
    assert report.acknowledged == report.log_rows > 50
