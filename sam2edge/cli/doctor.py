"""`sam2edge doctor`: the machine, what works on it, what "auto" would load, on one screen."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

import click

from sam2edge import __version__
from sam2edge.cli.terminal import progress
from sam2edge.diagnosis.backends import drop_broken, try_backends
from sam2edge.diagnosis.cameras import look_at_cameras
from sam2edge.diagnosis.findings import BROKEN, MISSING, NOTE, WORKS, Finding
from sam2edge.diagnosis.picking import Picking, check_memory_cap, explanation, find_auto_pick
from sam2edge.diagnosis.storage import Storage, look_at_store
from sam2edge.machine.describe import Machine, describe_machine
from sam2edge.machine.software import find_libraries
from sam2edge.selection.select import Selection
from sam2edge.serve.look import look_at_service

_MARKS = {WORKS: "[green]works[/]", BROKEN: "[red]broken[/]", MISSING: "[yellow]missing[/]", NOTE: "-"}

Row = tuple[str, str, str]
"""What, its state, and details: text for the screen, with rich's markup."""


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option(
    "--explain", is_flag=True, help='Show the rules by which "auto" picks a model, and how each candidate did.'
)
@click.pass_context
def doctor(context: click.Context, as_json: bool, explain: bool) -> None:
    """Show this machine, what works on it, and how to fix the rest.

    Each backend segments a picture in a process of its own. Exit status 0: a model can run; 1: none can.
    """
    libraries = find_libraries()
    with progress("trying the backends"):
        machine = describe_machine()
        backends = try_backends(libraries, machine.has_gpu, machine.board.is_jetson, machine.cuda)
        picking = find_auto_pick(drop_broken(libraries, backends), machine.has_gpu)
        cameras = [*look_at_cameras(), look_at_service()]
        storage = look_at_store()
    cap = check_memory_cap()
    can_run = any(finding.state == WORKS for finding in backends) and (cap is None or cap.state != BROKEN)
    if as_json:
        click.echo(json.dumps(_report(can_run, machine, backends, picking, cameras, storage, explain)))
    else:
        rows = [*_machine_rows(machine), *_finding_rows(backends)]
        rows += [*_finding_rows([cap] if cap else []), *_memory_rows(machine, picking)]
        _print([*rows, *_finding_rows(cameras), *_storage_rows(storage)], can_run)
        if explain:
            click.echo("\n".join(["", *explanation(picking)]))
    if not can_run:
        context.exit(1)


def _report(
    can_run: bool,
    machine: Machine,
    backends: list[Finding],
    picking: Picking,
    cameras: list[Finding],
    storage: Storage,
    explain: bool,
) -> dict[str, Any]:
    report: dict[str, Any] = {
        "sam2edge": __version__,
        "can_run": can_run,
        "machine": machine.to_json(),
        "backends": [asdict(finding) for finding in backends],
        "auto": _auto_report(picking),
        "cameras": [asdict(finding) for finding in cameras],
        "store": asdict(storage),
    }
    return {**report, "explanation": explanation(picking)} if explain else report


def _auto_report(picking: Picking) -> dict[str, Any]:
    choice = picking.choice
    if choice is None:
        return {"model": None, "problem": picking.problem}
    picked = choice.picked
    return {
        "model": picked.variant.model_id,
        "image_size": picked.image_size,
        "backend": picked.backend,
        "device": picked.device,
        "precision": picked.precision,
        "needs_bytes": picked.needs.total_bytes,
        "needs_source": picked.needs.source,
        "cache_bytes": choice.cache_bytes,
        "budgets": {
            name: {**asdict(budget), "reserve_bytes": budget.reserve_bytes, "usable_bytes": budget.usable_bytes}
            for name, budget in choice.budgets.items()
        },
        "larger_that_would_fit": picking.larger.variant.model_id if picking.larger else None,
        "command": picking.larger_command,
    }


def _machine_rows(machine: Machine) -> Iterable[Row]:
    board = machine.board
    yield "board", "", board.module or board.name or "unknown"
    if board.module and board.name:
        yield "", "", f"{board.name} ({board.part}, {board.soc})"
    yield (
        "system",
        "",
        ", ".join(part for part in (machine.system, machine.architecture, _format_release(machine)) if part),
    )
    versions = {"CUDA": machine.cuda, "TensorRT": machine.tensorrt}
    yield "installed", "", ", ".join(f"{name} {version or 'not found'}" for name, version in versions.items())
    yield "GPU", "", _describe_gpu(machine)
    mode = machine.power_mode
    if mode is not None:
        yield "power mode", "", f"{mode.name or '?'} (number {mode.number}, from {mode.source})"
    elif board.is_jetson:
        yield "power mode", "", "unknown: nvpmodel has set none"
    yield "clocks", "", _describe_clocks(machine)
    hottest = machine.heat.hottest_c
    yield "temperature", "", "no sensor found" if hottest is None else f"{hottest:.0f} C in the hottest zone"
    yield "throttling", "", _describe_throttling(machine)


def _format_release(machine: Machine) -> str:
    board = machine.board
    return f"L4T {board.l4t}, JetPack {board.jetpack or 'unknown'}" if board.l4t else ""


def _describe_gpu(machine: Machine) -> str:
    gpu = machine.gpu
    if gpu is not None:
        kind = "shares the CPU's memory" if gpu.integrated else f"{_format_gib(gpu.total_bytes)} of its own"
        return f"{gpu.name}, compute capability {gpu.compute_capability}, driver for CUDA {gpu.driver_cuda}, {kind}"
    if machine.has_gpu:
        known = machine.compute_capability
        return "an NVIDIA driver is there, but it reports no device" + (f" (compute capability {known})" * bool(known))
    return "none from NVIDIA"


def _describe_clocks(machine: Machine) -> str:
    if not machine.clocks:
        return "unknown: the kernel does not report them"
    shown = ", ".join(f"{c.name} {c.current_mhz} of {c.greatest_mhz} MHz" for c in machine.clocks[:3])
    if machine.clocks_pinned:
        return f"{shown}, pinned"
    return shown + ("; `sudo jetson_clocks` pins them for steady times" if machine.board.is_jetson else "")


def _describe_throttling(machine: Machine) -> str:
    if not machine.heat.zones_c and machine.gpu_state is None:
        return "unknown: no sensor found"
    parts = [f"now, by {', '.join(machine.slowed_by)}"] if machine.slowed_by else ["none now"]
    if machine.heat.over_current:
        counts = ", ".join(f"{line} {count}" for line, count in machine.heat.over_current.items())
        parts.append(f"over-current or under-voltage events since the start: {counts} (look at the power supply)")
    return "; ".join(parts)


def _memory_rows(machine: Machine, picking: Picking) -> Iterable[Row]:
    memory = machine.memory
    limit = ", limited by a cgroup" if memory.in_cgroup else ""
    shared = ", shared by CPU and GPU" if machine.shares_memory else ""
    yield (
        "memory",
        "",
        f"{_format_gib(memory.available_bytes)} available of {_format_gib(memory.total_bytes)}{limit}{shared}",
    )
    zram = f", {_format_gib(memory.zram_bytes)} of it zram" if memory.zram_bytes else ""
    used = f"{_format_gib(memory.swap_used_bytes)} used of {_format_gib(memory.swap_bytes)}{zram}"
    yield "swap", "", used if memory.swap_bytes else "none"
    if picking.choice is None:
        yield '"auto"', _MARKS[MISSING], str(picking.problem)
    else:
        yield from _pick_rows(picking.choice)
    if picking.larger is not None:
        yield "", "", f"{picking.larger.variant.model_id} would fit too: {picking.larger_command}"


def _pick_rows(choice: Selection) -> Iterable[Row]:
    for budget in choice.budgets.values():
        cap = "" if budget.cap_bytes is None else f", cap {_format_gib(budget.cap_bytes)}"
        usable = f"{_format_gib(budget.usable_bytes)} usable of {_format_gib(budget.available_bytes)} available"
        yield f"{budget.kind} memory", "", f"{usable}, {_format_gib(budget.reserve_bytes)} in reserve{cap}"
    needs = choice.picked.needs
    cache = "" if choice.cache_bytes is None else f", cache up to {_format_gib(choice.cache_bytes)}"
    yield '"auto"', "", f"{choice.picked}: takes {_format_gib(needs.total_bytes)} ({needs.source}){cache}"


def _storage_rows(storage: Storage) -> Iterable[Row]:
    writable = "" if storage.is_writable else ", not writable"
    yield "store", "", f"{storage.folder}: {_format_gib(storage.free_bytes)} free on its disk{writable}"
    for stored in storage.contents:
        yield "", "", f"{stored.model}: {stored.kind} {stored.form}, {stored.num_bytes / 2**20:.0f} MiB"


def _finding_rows(findings: Iterable[Finding]) -> Iterable[Row]:
    for finding in findings:
        yield finding.name, _MARKS[finding.state], finding.detail
        if finding.remedy:
            yield "", "", f"-> {finding.remedy}"


def _format_gib(num_bytes: int | None) -> str:
    if num_bytes is None:
        return "unknown"
    return f"{num_bytes / 2**30:.1f} GiB" if num_bytes >= 2**30 else f"{num_bytes / 2**20:.0f} MiB"


def _print(rows: Iterable[Row], can_run: bool) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, show_header=False, pad_edge=False)
    for column in ("what", "state"):
        table.add_column(column, no_wrap=True)
    table.add_column("detail", overflow="fold")
    for what, state, detail in rows:
        table.add_row(escape(what), state, escape(detail))
    console = Console()
    console.print(table)
    console.print("[green]A model can run here.[/]" if can_run else "[red]No model can run here.[/]")
