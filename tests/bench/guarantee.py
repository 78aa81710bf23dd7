"""The figures of docs/guarantee.md, from the demo's plan: `make bench NAME=guarantee`; a test holds the page to it."""

from __future__ import annotations

from pathlib import Path

from sfumato_common.accounting.accountant import epsilon_text
from sfumato_common.accounting.tradeoff import reach
from sfumato_common.files import write_json
from sfumato_common.study.costs import study_events
from sfumato_common.study.forecast import forecast
from sfumato_common.study.load import load_plan

PLAN = Path(__file__).resolve().parents[2] / "configs" / "demo.yaml"
_STAGES = {
    "spectral": "class-conditional moments, released once",
    "gan": "discriminator by DP-SGD",
    "flow": "small GLOW by DP-SGD",
    "choice": "which model is released, from noised scores",
    "release": "one noised latent a patient (dp-glow)",
}


def tables() -> str:
    """The page's tables, as they stand in it."""
    plan = load_plan(PLAN)
    assert plan.utility is not None
    cost = forecast(plan, plan.privacy.delta)
    lines = [
        "| stage | rounds | steps | noise multiplier | sampling rate | epsilon after |",
        "|---|---|---|---|---|---|",
        *(
            f"| {stage.stage}: {_STAGES[stage.stage]} | {stage.rounds} | {stage.steps} | "
            f"{'by method' if stage.noise_multiplier is None else f'{stage.noise_multiplier:.5g}'} | "
            f"{stage.sampling_rate:g} | {stage.epsilon_after:.3f} |"
            for stage in cost.stages
        ),
        "",
        "| who pays, in all | add/remove (PLD) | add/remove (RDP bound) | replace-one (PLD) |",
        "|---|---|---|---|",
        *(
            f"| {who} | {paid.add_remove:.3f} | {paid.add_remove_rdp:.3f} | {paid.replace_one:.3f} |"
            for who, paid in (
                ("training patients", cost.totals.train),
                (
                    f"holdout patients (test figure only, noise multiplier {plan.utility.noise_multiplier:g})",
                    cost.totals.holdout,
                ),
                ("any one patient", cost.totals.patient),
            )
        ),
        "",
    ]
    found = reach(study_events(plan, "train"), study_events(plan, "holdout"), plan.privacy.delta)
    lines += [
        "| what any attack on one patient reaches at most | ceiling |",
        "|---|---|",
        f"| mu of one Gaussian release that is no safer, up to the epsilon above | {found.mu:.3f} |",
        *(f"| epsilon at delta {delta:g} | {epsilon:.3f} |" for delta, epsilon in found.epsilon_at.items()),
        f"| area under an attack's curve | {found.auc:.3f} |",
        *(f"| true positives at {rate:g} false ones | {share:.3f} |" for rate, share in found.tpr.items()),
        f"| epsilon of two patients who come or go together | {epsilon_text(found.pair)} |",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    print(tables())
    write_json(Path("bench-out/guarantee.json"), {"tables": tables()})
