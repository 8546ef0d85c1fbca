"""The options that choose a model, with the names that a shell may complete."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click
from click.shell_completion import CompletionItem

F = TypeVar("F", bound=Callable[..., Any])


class ModelId(click.ParamType):
    """A model's id; loading the model checks it."""

    name = "ID"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        from sam2edge.variants import ALIASES, VARIANTS

        ids = ["auto", *(variant.model_id for variant in VARIANTS.values())]
        found = [name for name in ids if name.startswith(incomplete)]
        return [CompletionItem(name) for name in found or sorted(a for a in ALIASES if a.startswith(incomplete))]


class BackendName(click.ParamType):
    """A backend's name."""

    name = "NAME"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        from sam2edge.backends.registry import BACKENDS

        return [CompletionItem(name) for name in ("auto", *BACKENDS) if name.startswith(incomplete)]


class FileName(click.ParamType):
    """A file or folder that the shell completes; opening it shows whether it exists."""

    def __init__(self, name: str = "FILE") -> None:
        self.name = name

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        return [CompletionItem(incomplete, type="file")]


def model_options(command: F) -> F:
    """--model, --backend and --checkpoint, passed as `model_id`, `backend` and `checkpoint`."""
    for option in (
        click.option("--checkpoint", type=FileName(), help="Official weights of the model, .pt or .safetensors."),
        click.option(
            "--backend",
            type=BackendName(),
            default="auto",
            show_default=True,
            help="tensorrt, openvino, onnxruntime, torch, or auto, the fastest that works here.",
        ),
        click.option(
            "--model",
            "model_id",
            type=ModelId(),
            default="auto",
            show_default=True,
            help="tiny, large, sam2.0_hiera_tiny, ...: see `sam2edge models`.",
        ),
    ):
        command = option(command)
    return command
