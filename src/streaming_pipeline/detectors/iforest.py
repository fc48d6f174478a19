"""How few cuts isolate a row? An IsolationForest (Liu, Ting and Zhou 2008)."""

from sklearn.ensemble import IsolationForest

TREES, SAMPLES = 100, 1_024


def isolation_forest(samples: int = SAMPLES, seed: int = 0) -> IsolationForest:
    """The forest of the gold model and of the backtest, not fitted yet; each tree learns from so many rows."""
    return IsolationForest(n_estimators=TREES, max_samples=samples, random_state=seed)
