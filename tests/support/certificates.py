"""A site's certificate, as a test may bind a package to."""

from sfumato_common.study.certificate import Certificate

PAID = {"add_remove": 2.5, "add_remove_rdp": 2.75, "replace_one": 5.25}
CERTIFICATE = Certificate.model_validate(
    {
        "epsilon": dict.fromkeys(("train", "holdout", "patient"), PAID),
        "delta": 1e-5,
        "unit": "patient",
        "adjacency": "add-remove",
        "mechanisms": {"train": [], "holdout": []},
        "declared": [],
        "noise": "secure",
        "covers": "Everything that left this site under this plan.",
    }
)
