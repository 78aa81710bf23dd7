"""How good and how close a released table is, against holdout patients: exact, data-dependent, for the site alone.

Each figure stands beside its control: the training patients in place of the synthetic rows. Nothing here is charged,
because nothing here leaves; acting on it outside (releasing only what looks good) would be a disclosure.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.spatial.distance import cdist

from sfumato_client.tabular.coding import MISSING, Cells
from sfumato_client.tabular.schema import AnyColumn, CategoricalColumn, TableSchema

Float64 = npt.NDArray[np.float64]
_BINS = 20  # of a column with more values than that
_FEWEST_ROWS = 5


def local_report(schema: TableSchema, made: Cells, train: Cells, holdout: Cells) -> dict[str, Any]:
    """JSON value about cells [N, C] of all columns: marginals, correlations, a predictor's worth, distances."""
    if min(len(made), len(train), len(holdout)) < _FEWEST_ROWS:
        return {"note": f"fewer than {_FEWEST_ROWS} rows in a part: nothing can be compared"}
    columns = schema.columns
    return {
        "patients": {"train": len(train), "holdout": len(holdout)},
        "marginals": {
            name: {
                "synthetic": _marginal(column, made[:, place], holdout[:, place]),
                "train": _marginal(column, train[:, place], holdout[:, place]),
            }
            for place, (name, column) in enumerate(columns.items())
        },
        "mean_total_variation": {
            "synthetic": mean_total_variation(schema, made, holdout),
            "train": mean_total_variation(schema, train, holdout),
        },
        "correlation_difference": {
            "synthetic": correlation_difference(schema, made, holdout),
            "train": correlation_difference(schema, train, holdout),
        },
        "prediction": {
            "target": (target := schema.target or schema.condition),
            **({} if target is None else predicted(schema, target, made, train, holdout)),
        },
        "distance_to_train": distances(schema, made, train, holdout),
    }


def mean_total_variation(schema: TableSchema, one: Cells, other: Cells) -> float:
    """Mean over columns of the total variation between two tables' histograms."""
    columns = enumerate(schema.columns.values())
    return float(np.mean([_total_variation(column, one[:, place], other[:, place]) for place, column in columns]))


def correlation_difference(schema: TableSchema, one: Cells, other: Cells) -> float:
    """Mean absolute difference of all pairwise correlations (Pearson), of codes that `coded` gives."""
    first, second = (_correlations(encode_cells(schema.columns, cells)) for cells in (one, other))
    pairs = np.triu_indices(len(first), 1)
    return float(np.abs(first - second)[pairs].mean())


def distances(schema: TableSchema, made: Cells, train: Cells, holdout: Cells) -> dict[str, float]:
    """Distance to the nearest training record, of synthetic rows and of holdout records; `ratio` of the medians.

    A ratio well below 1 means rows nearer to training records than other people are.
    """
    real = encode_cells(schema.columns, train)
    synthetic, control = (cdist(encode_cells(schema.columns, cells), real).min(axis=1) for cells in (made, holdout))
    middle = float(np.median(control))
    return {
        "synthetic_median": float(np.median(synthetic)),
        "holdout_median": middle,
        "ratio": float(np.median(synthetic)) / middle if middle > 0 else float("nan"),
        "share_nearer_than_5_percent_of_holdout": float(np.mean(synthetic < np.quantile(control, 0.05))),
    }


def predicted(schema: TableSchema, target: str, made: Cells, train: Cells, holdout: Cells) -> dict[str, Any]:
    """TSTR: a predictor of `target` trained on synthetic rows, tested on holdout patients; and on training patients.

    Logistic regression: accuracy, and area under the curve of two levels; ridge regression of numbers: R^2.
    """
    names = list(schema.columns)
    place = names.index(target)
    others = {name: column for name, column in schema.columns.items() if name != target}
    numeric = schema.columns[target].kind == "numeric"

    def parted(cells: Cells) -> tuple[Float64, npt.NDArray[np.int64]]:
        kept = cells[cells[:, place] != MISSING]
        return encode_cells(others, np.delete(kept, place, axis=1)), kept[:, place]

    test = parted(holdout)
    score = _regression if numeric else _classification
    return {"synthetic": score(*parted(made), *test), "real": score(*parted(train), *test)}


def encode_cells(columns: dict[str, AnyColumn], cells: Cells) -> Float64:
    """Cells [N, C] -> [N, F]: numbers and ranks in [0, 1] by public bounds, levels one-hot.

    One-hot codes are divided by sqrt(2), so that two levels are 1 apart; an empty number or rank is 0.5.
    """
    parts: list[Float64] = []
    for column, own in zip(columns.values(), cells.T, strict=True):
        if isinstance(column, CategoricalColumn):
            parts.append((own[:, None] == np.arange(column.cells)) / np.sqrt(2.0))
        else:
            parts.append(np.where(own == MISSING, 0.5, own / (column.cells - 1))[:, None])
    return np.concatenate(parts, axis=1)


def _marginal(column: AnyColumn, one: npt.NDArray[np.int64], other: npt.NDArray[np.int64]) -> dict[str, float]:
    """Total variation of histograms and, where values have an order, Wasserstein distance over the public range."""
    found = {"total_variation": _total_variation(column, one, other)}
    first, second = one[one != MISSING], other[other != MISSING]
    if not isinstance(column, CategoricalColumn) and len(first) and len(second):
        from scipy.stats import wasserstein_distance

        found["wasserstein"] = float(wasserstein_distance(first, second)) / (column.cells - 1)
    return found


def _total_variation(column: AnyColumn, one: npt.NDArray[np.int64], other: npt.NDArray[np.int64]) -> float:
    """Between the histograms of two columns, empty cells included; many values share `_BINS` bins."""
    bins = min(column.cells, _BINS)

    def shares(cells: npt.NDArray[np.int64]) -> Float64:
        binned = np.where(cells == MISSING, bins, cells * bins // column.cells)
        return np.bincount(binned, minlength=bins + 1) / len(binned)

    return float(0.5 * np.abs(shares(one) - shares(other)).sum())


def _correlations(values: Float64) -> Float64:
    """[N, F] -> [F, F]; zero where a column is constant."""
    centred = values - values.mean(axis=0)
    lengths = np.linalg.norm(centred, axis=0)
    return np.asarray(centred.T @ centred / np.maximum(np.outer(lengths, lengths), 1e-12))


def _classification(
    x: Float64, y: npt.NDArray[np.int64], test_x: Float64, test_y: npt.NDArray[np.int64]
) -> dict[str, float | None]:
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if len(np.unique(y)) < 2 or len(np.unique(test_y)) < 2:
        return {"accuracy": None, "auc": None}
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000)).fit(x, y)
    accuracy = float(np.mean(model.predict(test_x) == test_y))
    two = len(model.classes_) == 2 and set(test_y) <= set(model.classes_)
    return {
        "accuracy": accuracy,
        "auc": float(roc_auc_score(test_y, model.predict_proba(test_x)[:, 1])) if two else None,
    }


def _regression(
    x: Float64, y: npt.NDArray[np.int64], test_x: Float64, test_y: npt.NDArray[np.int64]
) -> dict[str, float | None]:
    from sklearn.linear_model import Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if len(y) < 2 or len(test_y) < 2:
        return {"r2": None}
    return {"r2": float(make_pipeline(StandardScaler(), Ridge()).fit(x, y).score(test_x, test_y))}
