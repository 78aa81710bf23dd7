"""A site whose policy hides its name: nothing that is published or that other sites read has it."""

import copy
import io
import json
import zipfile
from pathlib import Path

import pytest
import yaml
from pyarrow import parquet
from support.commands import speaker
from support.federations import Federation, make_site
from support.homes import make_home
from support.studies import PLAN, POLICY

from sfumato_client.ledger.check import check_package
from sfumato_client.ledger.export import read_export
from sfumato_client.ledger.promised import begun
from sfumato_client.site.handler import Site
from sfumato_client.site.home import SiteHome
from sfumato_client.site.names import BINDING, draw_pseudonym, require_nameless
from sfumato_common.crypto.enrolment import enrolment_request
from sfumato_common.crypto.identity import create_identity, load_identity
from sfumato_common.crypto.pseudonyms import draw_name
from sfumato_common.crypto.signatures import fingerprint, raw_of
from sfumato_common.errors import ConfigError, PolicyRefusal, VerificationError
from sfumato_common.strict import parse
from sfumato_common.study.plan import Plan
from sfumato_common.study.policy import Policy
from sfumato_server.coordinator.publishing import publish_study, require_unnamed
from sfumato_server.coordinator.study import run_study
from sfumato_server.enrol import Registry, enrol, load_authority
from sfumato_server.publish import convert, verify_dataset
from sfumato_server.simulate.home import make_coordinator, take_package
from sfumato_server.status.live import page_text

OWN = "st-brendan"
HIDDEN = {**POLICY, "site": OWN, "name": "pseudonym"}
# a round of one stage says all that there is to say of names
SMALL = copy.deepcopy(PLAN)
SMALL["stages"], SMALL["release"] = SMALL["stages"][:1], [{"model": "spectral", "images": 12}]
SMALL["federation"]["quorum"] = 2
del SMALL["utility"]


def hidden_home(root, policy=HIDDEN) -> SiteHome:
    home = SiteHome(root)
    create_identity(home.identity, OWN)
    (root / "policy.yaml").write_text(yaml.safe_dump(policy))
    draw_pseudonym(home)
    return home


def enrol_hidden(coordinator, home, sites):
    identity = load_identity(home.keys)
    request = enrolment_request(identity, (identity.folder / BINDING).read_bytes())
    return enrol(coordinator.root, request, fingerprint(identity.signing_public), sites)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A whole study of a hidden site and a shown one, published."""
    root = tmp_path_factory.mktemp("hidden")
    home = hidden_home(root / "sites" / "hidden")
    name = home.policy().site
    values = {**SMALL, "sites": {name: {"nominal_patients": 40}, "birch": {"nominal_patients": 40}}}
    plan = parse(values, Plan, "plan")
    coordinator = make_coordinator(root / "coordinator", plan)
    make_home(home.root, OWN, plan, {key: value for key, value in HIDDEN.items() if key != "site"}, 40)
    enrol_hidden(coordinator, home, plan.sites)
    hidden = Site(home, lambda data, plan: take_package(coordinator, plan, name, data))
    sites = {name: hidden, "birch": make_site(root, "birch", coordinator, plan)}
    federation = Federation(root, plan, coordinator, sites)
    assert run_study(coordinator, federation, seed=1, classifier_steps=5) == "completed"
    return federation, home, publish_study(coordinator, root / "out", 0.0)


def own_traces(home):
    """What would tell whose a pseudonym is: the name, and the site's own key in the forms that files have."""
    key = load_identity(home.identity).signing_public
    body = b"".join(key.splitlines()[1:-1])
    return [OWN.encode(), raw_of(key), raw_of(key).hex().encode(), body, fingerprint(key).encode(), b"brendan"]


def contents(folder: Path):
    """(name, bytes) of every file below a folder, of every member of what is a zip, and of a packed table's cells."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            data = path.read_bytes()
            yield str(path.relative_to(folder)), data
            if zipfile.is_zipfile(path):
                with zipfile.ZipFile(io.BytesIO(data)) as members:
                    yield from ((f"{path.name}/{one}", members.read(one)) for one in members.namelist())
            if path.suffix == ".parquet":
                yield f"{path.name}, unpacked", repr(parquet.read_table(path).to_pylist()).encode()


def require_none(folder, traces):
    files = list(contents(folder))
    assert len(files) > 10
    for name, data in files:
        for trace in traces:
            assert trace.lower() not in name.lower().encode(), name
            assert trace.lower() not in data.lower(), f"{name} has {trace!r}"


def test_the_published_folder_has_the_name_nowhere_in_any_form(study, tmp_path):
    _, home, folder = study
    traces = own_traces(home)
    require_none(folder.parent, traces)
    for form in ("dicom", "parquet", "webdataset"):
        convert(folder, form, tmp_path / form)
        require_none(tmp_path / form, traces)


def test_the_set_verifies_by_the_pseudonyms_own_key(study):
    _, home, folder = study
    name, key = home.policy().site, load_identity(home.keys).signing_public
    assert name.startswith("site-")
    report = verify_dataset(folder, None, {name: key})
    assert set(report.sites) == {name, "birch"}
    with pytest.raises(VerificationError):
        verify_dataset(folder, None, {name: load_identity(home.identity).signing_public})


def test_other_sites_and_the_coordinators_page_see_the_pseudonym_alone(study):
    federation, home, _ = study
    page = page_text(federation.coordinator.root, federation.plan)
    assert home.policy().site in page
    assert OWN not in page.lower()
    require_none(federation.home("birch").root, own_traces(home))
    assert OWN not in (federation.coordinator.root / "plan.json").read_text()


def test_the_coordinator_knows_whose_name_it_is(study):
    federation, home, _ = study
    record = Registry(federation.coordinator.root).sites()[home.policy().site]
    assert (record.holder, record.holder_key) == (OWN, load_identity(home.identity).signing_public.decode())
    shown = Registry(federation.coordinator.root).sites()["birch"]
    assert (shown.holder, shown.holder_key) == ("", "")


def test_the_sites_own_ledger_proves_the_package_by_either_key(study):
    federation, home, _ = study
    package = next((federation.coordinator.root / "intake").glob(f"*{home.policy().site}*")).read_bytes()
    with home.open_ledger() as ledger:
        export = ledger.export()
        assert ledger.site == OWN
        assert ledger.begun() == [], "the pseudonym's release is out"
        # before it was, nothing else could take what it needed: the ledger knows plans by every name
        rows, accepted = [row for row in ledger._rows() if row.value["kind"] != "approve"], ledger.accepted
        assert [plan.study for plan in begun(rows, ledger.entries(), accepted, ledger.names)] == ["tiny"]
        assert begun(rows, ledger.entries(), accepted, [OWN]) == []
    own, known = (load_identity(folder).signing_public for folder in (home.identity, home.keys))
    report = check_package(export, package, own)
    report.require()
    assert report.approved
    assert report.approvals
    assert read_export(export).keys(home.policy().site, own) == (known, own)
    assert read_export(export).keys(home.policy().site, known) == (known, own)
    with pytest.raises(VerificationError, match="neither"):
        check_package(export, package, load_identity(federation.home("birch").identity).signing_public)
    unbound = json.dumps({key: value for key, value in json.loads(export).items() if key != "bindings"}).encode()
    with pytest.raises(VerificationError, match="another site"):
        check_package(unbound, package, None)


def test_nobody_derives_the_pseudonym_from_the_name(tmp_path):
    drawn = {hidden_home(tmp_path / str(number)).policy().site for number in range(3)}
    assert len(drawn) == 3, "the same name draws another pseudonym each time"
    assert len({draw_name() for _ in range(1000)}) == 1000


def test_a_plan_with_the_own_name_anywhere_is_refused(tmp_path):
    home = hidden_home(tmp_path / "home")
    sites = {home.policy().site: {"nominal_patients": 40}, "birch": {"nominal_patients": 40}}
    for more in ({"study": f"{OWN}-lungs"}, {"publication": {"title": "Chests of St-Brendan"}}):
        plan = parse({**SMALL, "sites": sites, **more}, Plan, "plan")
        with pytest.raises(PolicyRefusal, match="own name"):
            require_nameless(home, plan)
    require_nameless(home, parse({**SMALL, "sites": sites, "study": "brendanite"}, Plan, "plan"))


def test_the_coordinator_takes_a_hospital_once_and_publishes_no_plan_that_names_it(tmp_path):
    home = hidden_home(tmp_path / "home")
    name = home.policy().site
    plan = parse({**SMALL, "sites": {name: {"nominal_patients": 40}, OWN: {"nominal_patients": 40}}}, Plan, "plan")
    coordinator = make_coordinator(tmp_path / "coordinator", plan)
    with pytest.raises(VerificationError, match="one of the two"):
        enrol_hidden(coordinator, home, plan.sites)
    enrol_hidden(coordinator, home, [name])
    with pytest.raises(ConfigError, match="nothing is published"):
        require_unnamed(plan, Registry(coordinator.root).sites().values())
    draw_pseudonym(home, rotate=True)
    with pytest.raises(VerificationError, match="already"):
        enrol_hidden(coordinator, home, [name, home.policy().site])


def test_a_name_that_is_another_sites_cannot_be_claimed(tmp_path):
    """Neither a stranger's pseudonym nor a stranger's hospital goes into a request: both keys sign."""
    mine, theirs = hidden_home(tmp_path / "mine"), hidden_home(tmp_path / "theirs")
    coordinator = make_coordinator(tmp_path / "coordinator", parse(SMALL, Plan, "plan"))
    identity = load_identity(mine.keys)
    stolen = (load_identity(theirs.keys).folder / BINDING).read_bytes()
    told = fingerprint(identity.signing_public)
    with pytest.raises(VerificationError, match="another one"):
        enrol(coordinator.root, enrolment_request(identity, stolen), told, [identity.site])
    bent = json.loads((identity.folder / BINDING).read_bytes())
    bent["body"]["site"] = "st-elsewhere"
    with pytest.raises(VerificationError, match="does not hold"):
        enrol(coordinator.root, enrolment_request(identity, json.dumps(bent).encode()), told, [identity.site])


def test_stable_until_rotated_and_apart_by_study(tmp_path):
    home = hidden_home(tmp_path / "home", {**HIDDEN, "name": "pseudonym-per-study"})
    other = SiteHome(home.root, "lungs")
    with pytest.raises(ConfigError, match="--study lungs"):
        other.policy()
    draw_pseudonym(other)
    first, second = home.policy().site, other.policy().site
    assert first != second
    assert load_identity(home.keys).signing_public != load_identity(other.keys).signing_public
    assert SiteHome(home.root).policy().site == first, "it is kept"
    plan = parse({**SMALL, "sites": {first: {"nominal_patients": 40}, "birch": {"nominal_patients": 40}}}, Plan, "p")
    home.pin(plan)
    with pytest.raises(ConfigError, match="leave"):
        draw_pseudonym(home, rotate=True)
    later = plan.model_copy(update={"study": "later"})
    with pytest.raises(PolicyRefusal, match="pseudonym of its own"):
        require_nameless(home, later)
    require_nameless(home, plan)
    home.leave("tiny")
    draw_pseudonym(home, rotate=True)
    assert home.policy().site not in (first, second)
    assert {first, second} < {path.name for path in (home.root / "names").iterdir()}, "old keys are kept"


def test_one_pseudonym_in_all_studies_where_policy_says_so(tmp_path):
    home = hidden_home(tmp_path / "home")
    assert SiteHome(home.root, "lungs").policy().site == home.policy().site
    with pytest.raises(ConfigError, match="already"):
        draw_pseudonym(SiteHome(home.root, "lungs"))


def test_a_policy_that_would_link_studies_is_no_policy():
    with pytest.raises(ConfigError, match="keep them apart"):
        parse({**HIDDEN, "name": "pseudonym-per-study", "site_total": "published"}, Policy, "policy")


def test_without_a_pseudonym_nothing_opens_under_the_own_name(tmp_path):
    home = SiteHome(tmp_path)
    create_identity(home.identity, OWN)
    (tmp_path / "policy.yaml").write_text(yaml.safe_dump(HIDDEN))
    with pytest.raises(ConfigError, match="sfumato-site pseudonym"):
        home.policy()
    with home.open_ledger() as ledger:
        assert ledger.names == [OWN]


def test_by_command_from_the_first_key_to_the_coordinators_list(tmp_path, monkeypatch, capsys):
    say, home = speaker(monkeypatch, capsys), tmp_path / "site"
    (tmp_path / "policy.yaml").write_text(yaml.safe_dump(HIDDEN))
    code, _, told = say("sfumato-site", "init", "--home", home, "--policy", tmp_path / "policy.yaml")
    name = SiteHome(home).policy().site
    assert code == 0
    assert f"studies are to know site '{OWN}' by '{name}'" in told
    key = told.strip().splitlines()[-1]
    assert say("sfumato-site", "fingerprint", "--home", home)[2].strip() == key
    plan = parse({**SMALL, "sites": {name: {"nominal_patients": 40}, "birch": {"nominal_patients": 40}}}, Plan, "plan")
    coordinator = make_coordinator(tmp_path / "coordinator", plan)
    request, grant = home / "enrolment-request.json", tmp_path / "grant.json"
    words = ("coordinator", "enrol", "--home", coordinator.root, request, "--grant", grant, "--fingerprint", key)
    assert say("sfumato", *words)[0] == 0
    listed = json.loads(say("sfumato", "coordinator", "list", "--home", coordinator.root, "--json")[2])["sites"]
    assert listed[name]["holder"] == OWN
    assert listed[name]["fingerprint"] == key
    own = fingerprint(load_authority(coordinator.root).public_key)
    words = ("join", "--home", home, grant, "--coordinator", "127.0.0.1:9", "--fingerprint", own)
    assert say("sfumato-site", *words)[0] == 0
    code, line, _ = say("sfumato-site", "pseudonym", "--home", home)
    assert code != 0
    assert "--rotate" in line
    assert say("sfumato-site", "pseudonym", "--home", home, "--rotate")[0] == 0
    assert SiteHome(home).policy().site != name
