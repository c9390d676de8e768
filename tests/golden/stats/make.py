#!/usr/bin/env python3
"""Writes golden.json: curves, areas and confusion by scikit-learn, surface distances by SciPy, permutation tests by going
through every swap.

    pip install scikit-learn scipy numpy && python3 make.py
"""
import itertools
import json
import pathlib

import numpy as np
import scipy
import sklearn
from scipy import ndimage
from sklearn import metrics

rng = np.random.default_rng(5)


def binary(name, scores, positive):
    scores, positive = np.asarray(scores, float), np.asarray(positive, bool)
    fpr, tpr, thresholds = metrics.roc_curve(positive, scores, drop_intermediate=False)
    precision, recall, _ = metrics.precision_recall_curve(positive, scores)
    return {
        "name": name, "scores": scores.tolist(), "positive": positive.tolist(),
        "fpr": fpr.tolist(), "tpr": tpr.tolist(), "thresholds": thresholds[1:].tolist(),
        "precision": precision.tolist(), "recall": recall.tolist(),
        "auc": metrics.roc_auc_score(positive, scores),
        "average_precision": metrics.average_precision_score(positive, scores),
    }


def confusion(classes, cases):
    truth, answers = rng.integers(0, classes, cases), rng.integers(0, classes, cases)
    labels = list(range(classes))
    matrix = metrics.confusion_matrix(truth, answers, labels=labels)
    recall = metrics.recall_score(truth, answers, labels=labels, average=None, zero_division=0)
    specificity = [metrics.recall_score(truth != c, answers != c, zero_division=0) for c in labels]
    return {
        "truth": truth.tolist(), "answers": answers.tolist(), "matrix": matrix.tolist(),
        "accuracy": metrics.accuracy_score(truth, answers), "sensitivity": recall.tolist(), "specificity": specificity,
    }


def permutation(cases):
    one, other = rng.random(cases) < 0.8, rng.random(cases) < 0.4
    observed = abs(int(one.sum()) - int(other.sum()))
    difference = one.astype(int) - other.astype(int)
    every = [abs(int(np.dot(signs, difference))) for signs in itertools.product([1, -1], repeat=cases)]
    return {"one": one.tolist(), "other": other.tolist(), "p": float(np.mean(np.array(every) >= observed))}


def surfaces(shape, spacing, share):
    """Distances between the surfaces of two random blobs, by SciPy's distance transform."""
    smooth = lambda: ndimage.gaussian_filter(rng.random(shape), 1.2)
    a, b = (field > np.quantile(field, 1 - share) for field in (smooth(), smooth()))
    edge = lambda m: m & ~ndimage.binary_erosion(m)
    directed = lambda m, n: ndimage.distance_transform_edt(~edge(n), sampling=spacing)[edge(m)]
    ab, ba = directed(a, b), directed(b, a)
    return {
        "shape": shape, "spacing": spacing, "a": a.ravel().tolist(), "b": b.ravel().tolist(),
        "hausdorff_95": max(np.percentile(ab, 95), np.percentile(ba, 95)), "hausdorff": max(ab.max(), ba.max()),
        "average": np.concatenate([ab, ba]).mean(),
    }


many = rng.random(300) < 0.3
skewed = rng.random(400) < 0.02
skewed[:3] = True
cases = [
    binary("distinct", np.where(many, 0.3, 0.0) + rng.random(300), many),
    binary("tied", np.round(np.where(many, 0.3, 0.0) + rng.random(300), 1), many),
    binary("skewed", np.where(skewed, 0.2, 0.0) + rng.random(400), skewed),
    binary("two cases", [0.2, 0.7], [False, True]),
    binary("two cases, wrong", [0.7, 0.2], [False, True]),
    binary("all tied", [0.5] * 6, [True, False, True, False, False, True]),
    binary("one positive", [0.1, 0.4, 0.4, 0.9], [False, True, False, False]),
]
golden = {
    "versions": {"numpy": np.__version__, "scikit-learn": sklearn.__version__, "scipy": scipy.__version__},
    "binary": cases,
    "confusion": [confusion(5, 184), confusion(2, 9), confusion(3, 40)],
    "surfaces": [surfaces((7, 9, 11), (3.0, 1.5, 0.7), 0.2), surfaces((1, 12, 13), (1.0, 1.0, 2.0), 0.3),
                 surfaces((10, 8, 6), (1.0, 1.0, 1.0), 0.02)],
    "permutation": [permutation(n) for n in (1, 6, 13, 16)],
    "quantiles": {"values": (v := np.sort(rng.random(37))).tolist(), "at": (q := [0.0, 0.025, 0.5, 0.975, 1.0]),
                  "want": np.quantile(v, q).tolist()},
}
path = pathlib.Path(__file__).with_name("golden.json")
path.write_text(json.dumps(golden) + "\n")
