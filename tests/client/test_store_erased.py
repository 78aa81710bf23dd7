"""A store that is erased by its key, and an older one that is put back."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from support.homes import make_home
from support.studies import PLAN, POLICY
from typer.testing import CliRunner

from sfumato_client.cli.main import app
from sfumato_client.dataset.newest import newest_file
from sfumato_client.ingest import SiteImage
from sfumato_client.site.home import SiteHome
from sfumato_common.errors import BusyError, ConfigError, DataError, PolicyRefusal
from sfumato_common.locks import exclusive
from sfumato_common.strict import parse
from sfumato_common.study.plan import Plan


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> SiteHome:
    return make_home(tmp_path_factory.mktemp("homes") / "alder", "alder", parse(PLAN, Plan, "plan"), POLICY, 12)


@pytest.fixture
def home(made: SiteHome, tmp_path: Path) -> SiteHome:
    shutil.copytree(made.root, tmp_path / "alder")
    return SiteHome(tmp_path / "alder")


def run(home: SiteHome, *words: str, typed: str = ""):
    return CliRunner().invoke(app, ["erase-store", "--home", str(home.root), *words], input=typed)


def test_the_right_name_erases_and_another_one_does_not(home: SiteHome) -> None:
    result = run(home, typed="birch\n")
    assert isinstance(result.exception, PolicyRefusal)
    assert home.open_store().patients == 12
    kept = shutil.copytree(home.store, home.root.parent / "backup")
    result = run(home, typed="alder\n")
    assert result.exit_code == 0, result.output
    assert "ledger keeps" in result.output
    assert not home.store.exists()
    assert not (home.identity / "store.key").exists()
    shutil.copytree(kept, home.store)
    with pytest.raises(ConfigError, match="missing"):
        home.open_store()


def test_it_says_what_is_left_in_the_clear_and_asks_nothing_with_yes(home: SiteHome) -> None:
    home.incoming.mkdir()
    (home.incoming / "one.dcm").write_bytes(b"an image")
    result = run(home, "--yes")
    assert result.exit_code == 0
    assert "still here: incoming" in " ".join(result.output.split())


@pytest.mark.parametrize("what", ["node", "second node", "ingest", "question"])
def test_it_refuses_while_anything_runs(home: SiteHome, what: str) -> None:
    folders = {
        "node": home.root,
        "second node": home.root / "studies" / "lungs",
        "ingest": home.ingesting,
        "question": home.root / "turns" / "0123",
    }
    with exclusive(folders[what], "a test"):
        result = run(home, "--yes")
    assert isinstance(result.exception, BusyError)
    assert home.open_store().patients == 12


def test_a_mounted_key_is_not_ours_to_erase(home: SiteHome, monkeypatch: pytest.MonkeyPatch) -> None:
    mounted = home.root.parent / "mounted.key"
    shutil.move(home.identity / "store.key", mounted)
    monkeypatch.setenv("SFUMATO_STORE_KEY", str(mounted))
    result = run(home, "--yes")
    assert isinstance(result.exception, ConfigError)
    assert mounted.exists()
    assert home.store.exists()


def test_an_older_store_that_is_put_back_is_refused(home: SiteHome) -> None:
    plan, rng = parse(PLAN, Plan, "plan"), np.random.default_rng(0)
    older = shutil.copytree(home.store, home.root.parent / "older")
    shutil.rmtree(home.store)
    pictures = [rng.integers(0, 256, plan.image.shape).astype(np.uint8) for _ in range(10)]
    home.ingest((SiteImage(one, 0, f"new-{number}", None) for number, one in enumerate(pictures)), plan)
    assert home.open_store().patients == 10
    newer = home.store.rename(home.root.parent / "newer")
    shutil.copytree(older, home.store)
    with pytest.raises(DataError, match="older one"):
        home.open_store()
    with pytest.raises(DataError, match="older one"):
        home.require_fitting_store(plan)
    shutil.rmtree(home.store)
    newer.rename(home.store)
    assert home.open_store().patients == 10


def test_what_says_the_newest_cannot_be_rewritten(home: SiteHome) -> None:
    path = newest_file(home.store)
    path.write_text(path.read_text().replace('"newest":"', '"newest":"0'))
    with pytest.raises(DataError, match="altered"):
        home.open_store()
    path.unlink()
    assert home.open_store().patients == 12, "a store of before has none"
