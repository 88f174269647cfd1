import numpy as np
import pytest
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier

from featcache.errors import ProbeError
from featcache.heads.linear import CERTAIN_LOGIT, LinearHead


def head(loss, K=4, D=6, **fields):
    rng = np.random.default_rng(0)
    return LinearHead(
        loss,
        rng.normal(size=(K, D)).astype(np.float32),
        rng.normal(size=K).astype(np.float32),
        **fields,
    )


@pytest.fixture
def features():
    return np.random.default_rng(1).normal(size=(9, 6)).astype(np.float32)


def test_logits_are_float32_products(features):
    h = head("softmax")
    logits = h.logits(features)
    assert logits.dtype == np.float32
    np.testing.assert_allclose(logits, features @ h.coef.T + h.bias, rtol=1e-6)


def test_softmax_rows_sum_to_one(features):
    p = head("softmax").probabilities(1000 * features)
    assert p.dtype == np.float64
    assert np.isfinite(p).all()
    np.testing.assert_allclose(p.sum(axis=1), 1, rtol=1e-14)


def test_several_labels_are_independent_sigmoids(features):
    h = head("logistic", multi_label=True)
    np.testing.assert_allclose(h.probabilities(features), expit(h.logits(features)), rtol=1e-6)


def test_logistic_with_one_label_is_scikit_learns_one_vs_rest(blobs):
    X, y = blobs
    X = X.astype(np.float64) / 10
    referee = OneVsRestClassifier(LogisticRegression(tol=1e-8, max_iter=1000)).fit(X, y)
    columns = referee.estimators_
    h = LinearHead(
        "logistic",
        np.vstack([c.coef_ for c in columns]).astype(np.float32),
        np.concatenate([c.intercept_ for c in columns]).astype(np.float32),
    )
    np.testing.assert_allclose(h.probabilities(X), referee.predict_proba(X), atol=1e-5)


def test_rows_on_which_every_sigmoid_underflows_still_sum_to_one():
    h = LinearHead("logistic", np.zeros((2, 1), np.float32), np.float32([-2000, -2001]))
    p = h.probabilities(np.zeros((1, 1), np.float32))
    np.testing.assert_allclose(p, [[expit(1.0), expit(-1.0)]], rtol=1e-12)


@pytest.mark.parametrize("loss", ["softmax", "logistic"])
def test_an_absent_class_has_probability_zero_and_nothing_is_nan(loss, features):
    h = head(loss)
    h.coef[2], h.bias[2] = 0, -CERTAIN_LOGIT
    p = h.probabilities(100 * features)
    assert (p[:, 2] == 0).all()
    np.testing.assert_allclose(p.sum(axis=1), 1, rtol=1e-14)
    assert np.isfinite(h.logits(features).astype(np.float16)).all()


def test_probabilities_of_logits_are_those_of_the_features(features):
    for h in (head("softmax"), head("logistic"), head("logistic", multi_label=True)):
        np.testing.assert_array_equal(
            h.probabilities_of(h.logits(features)), h.probabilities(features)
        )


def test_both_forms_of_two_classes_believe_the_same(features):
    w, b = features[:1], np.float32([0.3])
    pair = LinearHead("softmax", np.vstack([-w, w]) / 2, np.concatenate([-b, b]) / 2)
    columns = LinearHead("logistic", np.vstack([-w, w]), np.concatenate([-b, b]))
    np.testing.assert_allclose(
        pair.probabilities(features), columns.probabilities(features), rtol=1e-5
    )


def test_float16_features_are_taken(features):
    h = head("softmax")
    half = features.astype(np.float16)
    np.testing.assert_array_equal(h.logits(half), h.logits(half.astype(np.float32)))


def test_wrong_shapes_are_refused(features):
    with pytest.raises(ProbeError, match="head for 6 features"):
        head("softmax").logits(features[:, :5])
    with pytest.raises(ProbeError, match="use 'logistic'"):
        head("softmax", multi_label=True)
    with pytest.raises(ProbeError, match="give \\(K, D\\) and \\(K,\\)"):
        LinearHead("softmax", np.zeros((3, 2)), np.zeros(2))
