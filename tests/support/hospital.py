"""One real hospital (home, keys, store, ledger) in this process, and a coordinator to talk to it as it pleases."""

import dataclasses
import json
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path

import torch
from flwr.app import Context, Message, Metadata, RecordDict
from flwr.common.serde import recorddict_to_proto

from sfumato_client.flower.app import HOME_VARIABLE, app
from sfumato_client.site.handler import Site
from sfumato_client.site.home import SiteHome
from sfumato_common.accounting.events import GaussianRelease
from sfumato_common.metrics.utility import Classifier
from sfumato_common.protocol.flower import decode_reply, decode_request, encode
from sfumato_common.protocol.messages import PROTOCOL, Reply, Request
from sfumato_common.strict import parse
from sfumato_common.study.plan import Plan
from sfumato_server.rounds.strategies import strategy_of
from support.homes import make_home
from support.studies import PLAN, POLICY

# one site is enough to attack; the third round of the GAN is there to be asked for too early
STAGES = [{**stage, "rounds": 3} if stage["kind"] == "gan" else stage for stage in PLAN["stages"]]
ONE_SITE = {
    **PLAN,
    "sites": {"alder": {"nominal_patients": 40}},
    "stages": STAGES,
    "formal_gate": {"noise_multiplier": 4.0},
    "federation": {**PLAN["federation"], "quorum": 1},
}
# what one release writes into the ledger
GATE = [("gate-formal", 1, "train", GaussianRelease(4.0))]


@dataclass
class Hospital:
    """A site's home, what it uploaded, and what an honest coordinator asks it, by (stage, round) or kind."""

    home: SiteHome
    plan: Plan
    uploads: list = field(default_factory=list)
    asked: dict = field(default_factory=dict)

    @property
    def site(self) -> Site:
        return Site(self.home, lambda data, plan: self.uploads.append(data))

    def request(self, kind="stage", stage="", number=0, brought=None, **changes) -> Request:
        base = Request(PROTOCOL, self.plan.digest, kind, stage, number, brought or {})
        return dataclasses.replace(base, **changes)

    def ask(self, request: Request) -> Reply:
        """Through Flower's records and back, as on the wire."""
        return decode_reply(encode(self.site.handle(decode_request(encode(request)))))

    def message(self, records: RecordDict, message_type="train", context=None) -> Message:
        """What Flower's ClientApp answers to a raw message."""
        return app(instruction(records, message_type), context or empty_context())

    def charges(self):
        with self.home.open_ledger() as ledger:
            ledger.verify()
            return [(entry.purpose, entry.round, entry.cohort, entry.event) for entry in ledger.entries()]

    def reason(self, reply: Reply) -> str:
        """What the site's own log holds under a reply's reference."""
        return (self.home.steward_folder / "errors" / f"{reply.reference}.txt").read_text()

    def refuses(self, request: Request, code: str, reason: str, paid=()) -> None:
        """Assert: refused with `code`, `reason` in the local log and nowhere else, and charged `paid` at most."""
        before = self.charges()
        self.refused(self.ask(request), code, reason)
        assert self.charges() == [*before, *paid]

    def refused(self, reply: Reply, code: str, reason: str) -> None:
        assert (reply.status, reply.code) == ("refused", code), self.reason(reply)
        assert not reply.arrays
        assert reason in self.reason(reply), self.reason(reply)
        said = json.dumps(reply.to_config()).replace(reply.reference, "")
        assert set(json.loads(said)) == {"protocol", "status", "code", "reference"}
        assert reason not in said

    def patients(self) -> int:
        return self.home.open_store().cohort("train").patients


def empty_context() -> Context:
    return Context(run_id=1, node_id=1, node_config={}, state=RecordDict(), run_config={})


def instruction(records: RecordDict, message_type="train") -> Message:
    """A message as the SuperNode hands it to the site's process."""
    metadata = Metadata(
        run_id=1, message_id="m", src_node_id=2, dst_node_id=1, reply_to_message_id="", group_id="",
        created_at=time.time(), ttl=600.0, message_type=message_type,
    )  # fmt: skip
    return Message(content=records, metadata=metadata)


def read(message: Message) -> Reply:
    """The site's reply in a message; Flower's own errors fail the test."""
    assert not message.has_error()
    return decode_reply(message.content)


def size_on_the_wire(reply: Reply) -> int:
    return recorddict_to_proto(encode(reply)).ByteSize()


def make_hospital(root: Path, name="alder", plan_values=None, policy=None, patients=40) -> Hospital:
    """A hospital that accepted its plan and has answered nothing yet."""
    plan = parse(plan_values or ONE_SITE, Plan, "plan")
    return Hospital(make_home(root, name, plan, policy or POLICY, patients), plan)


def study(hospital: Hospital) -> dict[str, Path]:
    """An honest study; copies of the hospital's folder before it, before the second GAN round, and at its end."""
    root, released, folders = hospital.home.root, {}, {}
    rng = torch.Generator().manual_seed(1)

    def keep(moment):
        folders[moment] = root.with_name(f"{root.name}-{moment}")
        shutil.copytree(root, folders[moment])

    def ask(key, request):
        hospital.asked[key] = request
        reply = hospital.ask(request)
        assert reply.status == "ok", hospital.reason(reply)
        return dict(reply.arrays)

    keep("fresh")
    for stage in hospital.plan.stages:
        strategy = strategy_of(hospital.plan, stage, released)
        for number in range(1, stage.rounds + 1):
            if (stage.kind, number) == ("gan", 2):
                keep("midway")
            request = hospital.request("stage", stage.kind, number, strategy.outbound(number, "alder"))
            strategy.absorb(number, {"alder": ask((stage.kind, number), request)}, rng)
        released[stage.kind] = dict(strategy.released())
    models = {f"{kind}:{name}": value for kind, values in released.items() for name, value in values.items()}
    keep("trained")
    ask("make", hospital.request("make", brought=models))
    ask("send", hospital.request("send"))
    torch.manual_seed(0)
    judge = {name: value.numpy() for name, value in Classifier(1, 2).state_dict().items()}
    ask("utility", hospital.request("utility", brought=judge))
    keep("finished")
    return folders


def environment(monkeypatch, hospital: Hospital) -> Hospital:
    monkeypatch.setenv(HOME_VARIABLE, str(hospital.home.root))
    return hospital
