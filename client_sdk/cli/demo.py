"""``pjais demo``: the story on a terminal, step by step, or as one JSON object."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec
import rich_click as click
from rich import box
from rich.table import Table
from rich.text import Text

from client_sdk.cli.device import Device, command, default_path
from client_sdk.cli.errors import HubExists
from client_sdk.demo import Check, Step, story

__all__ = ["demo"]

_CELL_MAX: Final = 90  # characters: a longer text shows its two ends, where the edits are


@click.command()
@click.option(
    "--keep", is_flag=True, help="Keep the folder with the devices' files and keys, and say where it is."
)
@command
async def demo(device: Device, *, keep: bool) -> int:
    """Show two encrypted devices and a server: apart, edited in ways that meet, and equal again.

    It makes its own files in a temporary folder. With --db (and --key-file) the first device's file is made there
    instead, and stays. Exit code 1 if anything is not as promised.
    """
    began = time.perf_counter()
    steps: list[Step] = []
    with _folder(device, keep=keep) as folder:
        path = folder / "laptop.db" if device.path == default_path() else device.path
        if path.exists():
            raise HubExists(path)
        key = device.key_file or path.with_suffix(".key")
        async with contextlib.aclosing(story(folder, laptop_path=path, laptop_key=key)) as told:
            async for step in told:
                steps.append(step)
                if not device.is_json:
                    _show(device, step)
        checks = [check for step in steps for check in step.checks]
        broken = [check for check in checks if not check.is_kept]
        seconds = round(time.perf_counter() - began, 3)
        if device.is_json:
            device.answer(_told(steps, checks, seconds, folder if keep else None))
        elif broken:
            device.out.print(f"[bold red]{len(broken)} of {len(checks)} promises were not kept[/]")
        else:
            device.out.print(
                f"[bold green]all {len(checks)} promises kept[/], in {seconds:.1f} s with everything"
            )
    return 1 if broken else 0


@contextlib.contextmanager
def _folder(device: Device, *, keep: bool) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="pjais-demo-"))
    try:
        yield folder
    finally:
        if keep:
            device.note(f"the devices' files and keys, and the server's data, are in {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)


def _show(device: Device, step: Step) -> None:
    title = Text.assemble((f"{step.name:<9}", "bold cyan"), step.told, (f"  {step.seconds:.2f} s", "dim"))
    device.out.print(title)
    if step.table is None:
        return
    table = Table(box=box.SIMPLE, header_style="bold", padding=(0, 1))
    for name in step.table.columns:
        table.add_column(name, overflow="fold", justify="left")
    for row in step.table.rows:
        table.add_row(*(Text(_cut(cell), style="green" if cell == "✓" else "") for cell in row))
    device.out.print(table)


def _cut(text: str) -> str:
    half = _CELL_MAX // 2
    return text if len(text) <= _CELL_MAX else f"{text[:half]} … {text[-half:]}"


def _told(steps: list[Step], checks: list[Check], seconds: float, folder: Path | None) -> dict[str, Any]:
    return {
        "ok": all(check.is_kept for check in checks),
        "seconds": seconds,
        "folder": None if folder is None else str(folder),
        "steps": [
            {**msgspec.to_builtins(step), "checks": [_checked(check) for check in step.checks]}
            for step in steps
        ],
    }


def _checked(check: Check) -> dict[str, Any]:
    return {**msgspec.to_builtins(check), "isKept": check.is_kept}
