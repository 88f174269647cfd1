import pytest

from featcache.errors import TrainingError
from featcache.training.spec import TrainingSpec


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"optimizer": "adam"}, "optimizer 'adam': unknown; give adamw or sgd"),
        ({"schedule": "step"}, "schedule 'step': unknown; give cosine or one-cycle"),
        ({"rate": -1.0}, r"rate -1\.0: give 0 or a positive number"),
        ({"rate": float("nan")}, "rate nan"),
        ({"weight_decay": float("inf")}, "weight_decay inf"),
        ({"epochs": 0}, "epochs 0: give at least 1"),
        ({"batch_size": 0}, "batch_size 0"),
        ({"unit_decay": 0.0}, r"unit_decay 0\.0: give above 0 to 1"),
        ({"warmup": 1.0}, r"warmup 1\.0: give 0 to below 1"),
        ({"smoothing": 1.0}, r"smoothing 1\.0"),
        ({"patience": 0}, "patience 0: give at least 1, or None"),
        ({"clip": 0.0}, r"clip 0\.0: give a positive norm"),
        ({"seed": -1}, "seed -1"),
        ({"memory": 0}, "memory 0"),
    ],
)
def test_what_cannot_be_asked_is_refused_by_name(fields, said) -> None:
    with pytest.raises(TrainingError, match=said):
        TrainingSpec(**fields)
