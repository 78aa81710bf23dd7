"""The demo on other people's indexes: sites are found, bad files are one clear line."""

from pathlib import Path

import pytest

from sfumato_common.errors import ConfigError, DataError
from sfumato_common.phantom import MODALITIES
from sfumato_common.study.forecast import forecast
from sfumato_common.study.load import load_resolved_plan, plan_text
from sfumato_server.demo.data import Cohort, index_sites
from sfumato_server.demo.plans import demo_plan

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
HEADER = "set,row,site,patient_id,split,abnormal\n"


def index(folder: Path, rows: str, header: str = HEADER) -> Path:
    path = folder / "index.csv"
    path.write_text(header + rows)
    return path


def test_sites_and_their_patients(tmp_path: Path) -> None:
    path = index(tmp_path, "a,0,east,p1,train,0\na,1,east,p1,train,1\na,2,west,p1,test,0\na,3,east,p2,val,0\n")
    assert index_sites(path) == {"east": 2, "west": 1}


def test_another_index_gets_a_plan_with_public_round_sizes(tmp_path: Path) -> None:
    rows = "".join(f"a,{n},east,p{n},train,0\n" for n in range(57)) + "a,0,west,q,train,0\n"
    plan = demo_plan(index(tmp_path, rows), CONFIGS)
    assert {site: terms.nominal_patients for site, terms in plan.sites.items()} == {"east": 50, "west": 10}
    assert plan.federation.quorum == 2
    alone = demo_plan(index(tmp_path, "a,0,west,q,train,0\n"), CONFIGS)
    assert alone.federation.quorum == 1


def test_an_index_of_few_patients_has_a_plan_that_sites_accept(tmp_path: Path) -> None:
    few = demo_plan(index(tmp_path, "".join(f"a,{n},east,p{n},train,0\n" for n in range(57))), CONFIGS)
    (tmp_path / "plan.yaml").write_text(plan_text(few))
    assert load_resolved_plan(tmp_path / "plan.yaml").digest == few.digest


def test_without_data_the_phantom_plan_serves() -> None:
    assert set(demo_plan(None, CONFIGS).sites) == {"alder", "birch", "cedar"}


@pytest.mark.parametrize(
    ("header", "rows", "word"),
    [
        (HEADER, "", "no rows"),
        ("set,row,site,patient_id,split\n", "a,0,x,p,train\n", "abnormal"),
        (HEADER, None, "read"),
        (HEADER, 'a,0,"east', "read"),
    ],
)
def test_bad_index_is_one_clear_line(tmp_path: Path, header: str, rows: str | None, word: str) -> None:
    path = index(tmp_path, rows, header) if rows is not None else tmp_path / "absent.csv"
    with pytest.raises(DataError, match=word):
        index_sites(path)


@pytest.mark.parametrize("row", ["a,0,St. Mary's,p,train,0", "a,0"])
def test_a_site_name_that_no_plan_allows_is_said_so(tmp_path: Path, row: str) -> None:
    """A row that was cut short names none."""
    with pytest.raises(ConfigError, match="the plan for"):
        demo_plan(index(tmp_path, f"{row}\na,1,east,p,train,0\n"), CONFIGS)


def test_source_descriptions_are_what_ingest_reads(tmp_path: Path) -> None:
    cohort = Cohort(tmp_path / "index.csv", tmp_path, 10)
    assert "kind: npz" in cohort.npz_source("east").read_text()
    assert "kind: dicom" in cohort.dicom_source("east").read_text()


@pytest.mark.parametrize(("modality", "size"), [("chest", 128), ("chest", 256), ("fundus", 128)])
def test_plans_of_real_sizes_are_affordable_and_speak_the_phantoms_labels(modality: str, size: int) -> None:
    plan = demo_plan(None, CONFIGS, modality, size)
    kind = MODALITIES[modality]
    assert (plan.image.size, plan.image.channels) == (size, kind.channels)
    assert tuple(plan.labels) == kind.labels
    assert forecast(plan, plan.privacy.delta).epsilon_train <= plan.privacy.epsilon


def test_a_size_without_a_plan_is_said_so() -> None:
    with pytest.raises(ConfigError, match=r"chest-77\.yaml"):
        demo_plan(None, CONFIGS, "chest", 77)
