"""Whatever a user may name comes from `sam2edge` itself."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path

import sam2edge
from sam2edge import errors

ROOT = Path(__file__).parent.parent


def test_every_name_is_there() -> None:
    assert sorted(sam2edge.__all__) == sorted(sam2edge._HOMES)
    for name in sam2edge.__all__:
        assert getattr(sam2edge, name) is not None


def test_every_error_is_named() -> None:
    of_ours = {
        name for name, value in vars(errors).items() if inspect.isclass(value) and value.__module__ == errors.__name__
    }
    assert of_ours <= set(sam2edge.__all__)


def test_type_checkers_see_the_same_names() -> None:
    text = (ROOT / "sam2edge" / "__init__.py").read_text(encoding="utf-8")
    announced = text.partition("TYPE_CHECKING:")[2].partition("__version__")[0]
    assert not [name for name in sam2edge.__all__ if name not in announced]


def test_importing_stays_light() -> None:
    program = "import sam2edge, sys; assert not {'numpy', 'cv2', 'onnxruntime', 'torch'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)


def test_the_spellings_of_inference_models() -> None:
    assert sam2edge.SAM2Prediction is sam2edge.Sam2Prediction
    assert sam2edge.SAM2ImageEmbeddings is sam2edge.Sam2ImageEmbedding
