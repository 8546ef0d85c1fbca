"""Shows a build's progress on standard error: bars on a terminal, else a line for each engine."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn


class BuildProgress:
    """Shows the builder's phases while they run."""

    def __init__(self, title: str) -> None:
        self._console = Console(stderr=True, soft_wrap=True)
        columns = TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn()
        self._bars = Progress(*columns, console=self._console, transient=True, disable=not self._console.is_terminal)
        self._tasks: dict[str, TaskID] = {}
        self._console.print(title, highlight=False)

    def __enter__(self) -> BuildProgress:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def note(self, line: str) -> None:
        """One line that stays."""
        for task in self._tasks.values():
            self._bars.remove_task(task)
        self._tasks.clear()
        self._console.print(line, highlight=False)

    def update(self, kind: str, name: str, steps: int = 0, step: int = 0) -> None:
        """An event of the builder: "phase" starts one of `steps` steps, "step" ends one, "phase_end" the phase."""
        if kind == "phase":
            self._tasks[name] = self._bars.add_task(name, total=steps)
        elif name in self._tasks and kind == "step":
            self._bars.update(self._tasks[name], completed=step + 1)
        elif name in self._tasks and kind == "phase_end":
            self._bars.remove_task(self._tasks.pop(name))
