"""The frozen public networks that a plan, or the site's own gate, names: read from the folder that the policy says,
or installed beside the product.

Apart from the home, since they load torch, which takes seconds and most commands never need.
"""

from __future__ import annotations

from sfumato_client.audit.soundness import TextReader
from sfumato_client.site.home import SiteHome
from sfumato_common.encoders.encoder import Encoder, Encoders
from sfumato_common.encoders.settings import EncoderTerms
from sfumato_common.errors import ConfigError
from sfumato_common.study.gate_rules import GateRules
from sfumato_common.study.plan import Plan
from sfumato_common.study.policy import Policy


def given_encoders(home: SiteHome, plan: Plan, policy: Policy) -> Encoders:
    """The given encoders that `plan` may name."""
    return Encoders(home.root / policy.encoders, plan.encoders)


def gate_encoder(home: SiteHome, terms: EncoderTerms, policy: Policy) -> Encoder:
    """The encoder by which the gate's second verifier compares, from the same folder."""
    return Encoders(home.root / policy.encoders, {"gate": terms}).load("gate")


def text_reader(rules: GateRules) -> TextReader | None:
    """What reads text in the gate's candidates, where the policy has that refused; it loads when it is first asked."""
    if rules.text == "not-read":
        return None
    from sfumato_client.ingest.burned_in import has_text

    return has_text


def require_text_reader(rules: GateRules) -> None:
    """Raise ConfigError where the gate is to read text and what reads it is not installed: the gate would refuse."""
    if rules.text == "refused":
        from sfumato_client.ingest.text_networks import require_networks

        try:
            require_networks()
        except ConfigError:
            raise ConfigError(
                "release.gate.text is 'refused', and the networks that read text are not installed: "
                "pip install onnxruntime rapidocr==3.10.0; or write 'text: not-read'"
            ) from None
