"""Taking back what was done, by this process or the next."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from sam2edge.bundle.journal import Journal


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    (tmp_path / "journal").mkdir()
    return Journal(tmp_path / "journal")


def _change_everything(journal: Journal, folder: Path) -> None:
    """One of each: a file and a folder changed, a link removed, new ones made, some that never come to be."""
    (folder / "file").write_text("old")
    (folder / "folder").mkdir()
    (folder / "folder" / "inner").write_text("old")
    (folder / "link").symlink_to("file")
    for name in ("file", "folder", "link"):
        journal.will_change(folder / name)
    (folder / "file").write_text("new")
    (folder / "folder" / "inner").unlink()
    (folder / "folder" / "other").write_text("new")
    (folder / "link").unlink()
    journal.make_parent(folder / "a" / "b" / "made")
    journal.will_make(folder / "a" / "b" / "made")
    (folder / "a" / "b" / "made").write_text("new")
    journal.will_make(folder / "never")
    journal.will_make(folder / "file" / "below a file")


def _is_as_before(folder: Path) -> bool:
    names = {path.name for path in folder.iterdir()}
    return (
        names == {"file", "folder", "link"}
        and (folder / "file").read_text() == "old"
        and [p.name for p in (folder / "folder").iterdir()] == ["inner"]
        and (folder / "link").readlink() == Path("file")
    )


def test_all_is_taken_back(journal: Journal, tmp_path: Path) -> None:
    folder = tmp_path / "there"
    folder.mkdir()
    _change_everything(journal, folder)
    journal.undo()
    assert _is_as_before(folder)
    assert not journal.folder.exists()


def test_another_process_takes_it_back(journal: Journal, tmp_path: Path) -> None:
    folder = tmp_path / "there"
    folder.mkdir()
    _change_everything(journal, folder)
    with (journal.folder / "journal.jsonl").open("a") as file:
        file.write('{"remove": "/half a li')  # a power cut while it was being written
    Journal(journal.folder).undo()
    assert _is_as_before(folder)


def test_an_undo_that_was_cut_short_is_finished(
    journal: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "there"
    folder.mkdir()
    _change_everything(journal, folder)
    move = shutil.move
    moved: list[str] = []

    def move_once(source: str, target: str) -> None:
        if moved:
            raise InterruptedError
        moved.append(move(source, target))

    monkeypatch.setattr(shutil, "move", move_once)
    with pytest.raises(InterruptedError):
        journal.undo()
    monkeypatch.undo()
    Journal(journal.folder).undo()
    assert _is_as_before(folder)


def test_what_is_committed_stays(journal: Journal, tmp_path: Path) -> None:
    folder = tmp_path / "there"
    folder.mkdir()
    _change_everything(journal, folder)
    journal.commit()
    assert not journal.folder.exists()
    assert (folder / "file").read_text() == "new"
    assert (folder / "a" / "b" / "made").is_file()
