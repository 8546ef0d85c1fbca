"""Taking back what was done, by this process or the next."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from sam2edge.bundle.journal import Journal, UnusableJournal


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    (tmp_path / "journal").mkdir(mode=0o700)
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


def test_a_folder_with_something_else_in_it_stays(journal: Journal, tmp_path: Path) -> None:
    journal.make_parent(tmp_path / "a" / "b" / "made")
    (tmp_path / "a" / "mine").write_text("made since")
    journal.undo()
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["mine"]


def _plant(folder: Path, *steps: dict[str, str], mode: int = 0o600) -> None:
    folder.mkdir(mode=0o700)
    (folder / "journal.jsonl").write_text("".join(json.dumps(step) + "\n" for step in steps))
    (folder / "journal.jsonl").chmod(mode)
    (folder / "backup-0").write_text("planted")


@pytest.mark.parametrize("how", ["another owner", "folder of all", "list of all", "link to a folder", "link to a list"])
def test_a_planted_journal_is_not_obeyed(how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    precious, planted = tmp_path / "precious", tmp_path / "planted"
    precious.write_text("precious")
    _plant(planted, {"remove": str(precious)}, {"restore": str(precious), "from": "backup-0"})
    if how == "another owner":
        monkeypatch.setattr("os.geteuid", lambda: 12345)
    elif how == "folder of all":
        planted.chmod(0o777)
    elif how == "list of all":
        (planted / "journal.jsonl").chmod(0o666)
    elif how == "link to a folder":
        planted.rename(tmp_path / "other")
        planted.symlink_to("other")
    else:
        (planted / "journal.jsonl").rename(tmp_path / "list")
        (planted / "journal.jsonl").symlink_to(tmp_path / "list")
    with pytest.raises(UnusableJournal):
        Journal(planted).undo()
    assert precious.read_text() == "precious"


@pytest.mark.parametrize("backup", ["../precious", "/etc/passwd", "backup-0/../../precious"])
def test_backups_come_from_the_journals_own_folder_alone(backup: str, tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("precious")
    _plant(tmp_path / "planted", {"restore": str(tmp_path / "target"), "from": backup})
    with pytest.raises(UnusableJournal):
        Journal(tmp_path / "planted").undo()
    assert (tmp_path / "precious").exists() and not (tmp_path / "target").exists()


def test_nothing_is_undone_through_a_link(journal: Journal, tmp_path: Path) -> None:
    """The owner of the store puts a link where the installer had made a folder."""
    store, elsewhere = tmp_path / "store", tmp_path / "elsewhere"
    (store / "graphs").mkdir(parents=True)
    (store / "graphs" / "old").write_text("old")
    elsewhere.mkdir()
    for name in ("made", "old"):
        (elsewhere / name).write_text("precious")
    journal.will_make(store / "graphs" / "made")
    journal.will_change(store / "graphs" / "old")
    shutil.rmtree(store / "graphs")
    (store / "graphs").symlink_to(elsewhere)
    with pytest.raises(UnusableJournal, match="is a link now"):
        journal.undo()
    assert {path.name: path.read_text() for path in elsewhere.iterdir()} == {"made": "precious", "old": "precious"}


@pytest.mark.parametrize("content", [b"\0" * 4096, b"not json\n", b'{"remove": 1}\n', b'["remove"]\n', b"{}\n"])
def test_a_damaged_journal_is_told_after_what_can_be_read(content: bytes, journal: Journal, tmp_path: Path) -> None:
    journal.will_make(tmp_path / "made")
    (tmp_path / "made").write_text("new")
    with (journal.folder / "journal.jsonl").open("ab") as file:
        file.write(content)
    with pytest.raises(UnusableJournal, match="damaged"):
        Journal(journal.folder).undo()
    assert not (tmp_path / "made").exists() and journal.folder.exists()
