"""The record of a generator: all that must be known of one kind of stage, in one place.

A field that is left out, or a record at odds with itself, is an error at import. Records load no torch: functions in
them import what they need when they are called, because every request to a site is answered by a process of its own,
and all of them read plans. The two halves that stand on other floors, the site's trainer and the coordinator's
strategy, are named (`package.module:name`), so that neither side loads the other's.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from inspect import isabstract
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, get_args

from sfumato_common.generators.plan import PublicPlan
from sfumato_common.generators.settings import S
from sfumato_common.generators.summed import Summed
from sfumato_common.types import Arrays, Schema

if TYPE_CHECKING:
    import torch
    from torch import nn

    from sfumato_common.generators.flow.flows import Flow
    from sfumato_common.generators.whitening import Whitening
    from sfumato_common.latent.space import LatentSpace
    from sfumato_common.mechanisms.draws import Draws

# (components [N], where randomness comes from) -> images [N, C, S, S] in [-1, 1]
Draw: TypeAlias = "Callable[[torch.Tensor, Draws], torch.Tensor]"
Build: TypeAlias = "Callable[[PublicPlan], nn.Module]"

_KIND = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_NAME = re.compile(r"[a-z_][a-z0-9_]*(\.[a-z_][a-z0-9_]*)+:[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True, kw_only=True)
class Exchange(Generic[S]):
    """One kind of stage: what travels, by schemas that follow from the plan, and who does it at either end.

    `help` is one sentence for people. `sent` is what the coordinator sends a site in a round, `returned` what a site
    may send back, `released` what the stage leaves when it is over. `check_reply` raises VerificationError for what has
    the form of `returned`, and which the named site's nominal patients and the plan's noise cannot have led to. What is
    sent and released of a generator are weights of its networks, named `<network>/<parameter>`, and fixed arrays, named
    `<kind>/<name>` after the stage that made them, which a site takes with the same values all through a study.
    `summed` is how its release becomes sums over sites; None where it is none of one exchange.
    """

    kind: str
    settings: type[S]
    help: str
    sent: Callable[[PublicPlan], Schema]
    returned: Callable[[PublicPlan], Schema]
    check_reply: Callable[[PublicPlan, str, Arrays], None]
    released: Callable[[PublicPlan], Schema]
    trainer: str
    strategy: str
    summed: Summed | None

    def __post_init__(self) -> None:
        fields = self.settings.model_fields
        assert _KIND.fullmatch(self.kind), f"'{self.kind}' is no kind: lower-case words joined by '-'"
        assert "noise_multiplier" in fields, f"stage '{self.kind}' states no noise multiplier"
        stated = get_args(fields["kind"].annotation) if "kind" in fields else ()
        assert stated == (self.kind,), f"the settings of '{self.kind}' are those of another kind"
        assert not isabstract(self.settings), f"the settings of '{self.kind}' do not say what a round costs"
        assert self.help.endswith(".") and "\n" not in self.help, f"help of '{self.kind}' is one sentence"
        for name in (self.trainer, self.strategy, *([self.summed.summand] if self.summed else [])):
            assert _NAME.fullmatch(name), f"'{name}' is not of the form package.module:name"


@dataclass(frozen=True, kw_only=True)
class Generator(Exchange[S]):
    """An exchange whose release can be sampled.

    `networks` are the trained ones by name, each as it is built from a plan. `max_displacement` says how far at most
    that many rounds of these settings can move any weight of a network, by the bounds of its own optimisers; None
    where there is no network. `sampler` draws images from released arrays. `latent` is the space that methods walk
    in, `flow` the network whose standard normal latents methods noise, `whitening` the way to what flows and diffusion
    learn after a stage that a plan may begin with, of released arrays; None where there is none.
    `check_fixed` raises VerificationError where its fixed arrays, of the right form, are not what an honest
    coordinator's fit can give; None where there are none, or no values are worse than others.
    `pretraining` names a trainer on public images (see `generators.pretraining`), None where there is nothing to train.
    `adopt` gives weights of a published layout the names that they have here, and leaves others as they are; it raises
    VerificationError for those that the plan's form does not hold whole. None where no layout is known.
    """

    networks: Mapping[str, Build]
    max_displacement: Callable[[S, str, int], float] | None
    check_fixed: Callable[[PublicPlan, Arrays], None] | None
    sampler: Callable[[PublicPlan, Arrays], Draw]
    latent: Callable[[PublicPlan, Arrays], LatentSpace] | None
    flow: Callable[[PublicPlan, Arrays], Flow] | None
    whitening: Callable[[PublicPlan, Arrays], Whitening] | None
    pretraining: str | None
    adopt: Callable[[PublicPlan, Mapping[str, torch.Tensor]], Mapping[str, torch.Tensor]] | None

    def __post_init__(self) -> None:
        super().__post_init__()
        assert all(map(_KIND.fullmatch, self.networks)), f"a network of '{self.kind}' has a malformed name"
        assert bool(self.networks) == (self.max_displacement is not None), (
            f"'{self.kind}' bounds the displacement of its networks, and of nothing else"
        )
        assert self.pretraining is None or _NAME.fullmatch(self.pretraining), f"pretraining of '{self.kind}' is no name"


def import_named(name: str) -> Any:
    """What `package.module:name` names; its module is imported now."""
    module, _, attribute = name.partition(":")
    return getattr(import_module(module), attribute)
