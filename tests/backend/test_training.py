import numpy as np
import pytest
from scipy.optimize import minimize

from ser_backend import training

RANDOM = np.random.default_rng(0)


@pytest.mark.parametrize(("n", "k"), [(200, 10), (12, 40)])  # more pairs than weights, and fewer
def test_fit_head_minimises_the_stated_objective(n: int, k: int) -> None:
    x, centre = RANDOM.normal(size=(n, k)), RANDOM.normal(size=k)

    def objective(w: np.ndarray) -> float:
        return float(np.logaddexp(0, -x @ w).sum() + 0.5 * 3.0 * ((w - centre) ** 2).sum())

    found = training.fit_head(x, 3.0, centre)
    reference = minimize(objective, centre, method="BFGS", options={"gtol": 1e-8})
    assert objective(found) <= reference.fun + 1e-9
    assert found == pytest.approx(reference.x, abs=1e-4)
    assert training.fit_head(x, 3.0, centre, start=RANDOM.normal(size=k)) == pytest.approx(found, abs=1e-6)


def test_no_pairs_leave_the_weights_where_they_were() -> None:
    centre = np.arange(3.0)
    assert training.fit_head(np.empty((0, 3)), 1.0, centre).tolist() == centre.tolist()


def test_pairs_without_any_difference_teach_nothing() -> None:
    centre = np.arange(5.0)
    assert training.fit_head(np.zeros((2, 5)), 1.0, centre).tolist() == centre.tolist()


def test_swapping_a_pair_and_its_label_changes_nothing() -> None:
    z_a, z_b = RANDOM.normal(size=(2, 50, 6))
    preferred = RANDOM.choice([-1, 1], 50)
    one = training.fit_head((z_a - z_b) * preferred[:, None], 1.0, np.zeros(6))
    other = training.fit_head((z_b - z_a) * -preferred[:, None], 1.0, np.zeros(6))
    assert one.tolist() == other.tolist()


def test_choose_l2_prefers_less_penalty_when_there_is_more_to_learn() -> None:
    truth = RANDOM.normal(size=20)
    x = RANDOM.normal(size=(800, 20))
    x *= np.sign(x @ truth)[:, None]
    strong = training.choose_l2(x, np.arange(800) % 5)
    noise = RANDOM.normal(size=(100, 20))
    weak = training.choose_l2(noise, np.arange(100) % 5)
    assert strong.l2 == min(training.L2_GRID)
    assert weak.l2 == max(training.L2_GRID)
    assert set(strong.log_loss) == set(training.L2_GRID)


def test_one_fold_cannot_validate() -> None:
    assert training.choose_l2(RANDOM.normal(size=(10, 3)), np.zeros(10)).log_loss == {}


def test_folds_keep_groups_together_and_do_not_depend_on_other_groups() -> None:
    keys = RANDOM.integers(0, 2**63, 50).astype(np.uint64).repeat(3)
    folds = training.fold_of(keys)
    assert (folds.reshape(50, 3) == folds.reshape(50, 3)[:, :1]).all()
    assert training.fold_of(keys[30:]).tolist() == folds[30:].tolist()


def test_basis_has_unit_mean_variance_and_uncorrelated_components() -> None:
    features = RANDOM.normal(size=(300, 40)) @ RANDOM.normal(size=(40, 40)) + 5
    z = training.fit_basis(features, 8, 0).project(features)
    assert z.shape == (300, 8)
    assert z.mean(0) == pytest.approx(np.zeros(8), abs=1e-3)
    covariance = np.cov(z.T)
    assert covariance.trace() / 8 < 1.01
    assert np.abs(covariance - np.diag(np.diag(covariance))).max() < 1e-2 * covariance.max()
    assert training.fit_basis(features[:5], 8, 0).directions.shape == (40, 5)
