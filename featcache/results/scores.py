"""Parts of what `probe` found."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class PathPoint:
    """One candidate of the path: scores on held-out rows of the training part.

    Attributes:
        C: inverse strength of the penalty; None where neighbours vote.
        accuracy: share of rows that are right.
        log_loss: mean, in nats, and log_loss_error its standard error; None for scores that are
            no probabilities (ridge).
        neighbours: how many vote, else None.
        squared_error: mean squared error of ridge's scores, else None.
    """

    C: float | None
    accuracy: float
    log_loss: float | None
    log_loss_error: float | None
    neighbours: int | None = None
    squared_error: float | None = None


@dataclass(frozen=True)
class Estimate:
    """What to expect on new pictures.

    Attributes:
        method: which rows were held out and how C was chosen without them, and the interval's
            name.
        accuracy: share of right rows; ci95: its 95% interval.
        mean_per_class: recall averaged over classes (several labels: mean average precision).
        log_loss: mean negative log probability of the given label, in nats; None for scores
            that are no probabilities (ridge).
        n: rows it was measured on.
    """

    method: str
    accuracy: float
    ci95: tuple[float, float]
    mean_per_class: float
    log_loss: float | None
    n: int


@dataclass(frozen=True)
class Calibration:
    """What one temperature, fitted on other held-out rows, does to the probabilities.

    Attributes:
        temperature: that divides the logits; above 1 where the probabilities were too sure.
        ece_before, ece_after: expected calibration error, from 0 to 1.
        log_loss_before, log_loss_after: nats.
    """

    temperature: float
    ece_before: float
    ece_after: float
    log_loss_before: float
    log_loss_after: float


@dataclass(frozen=True)
class Suspect:
    """A picture whose label is likely wrong: what it is given, and what the others suggest."""

    path: str
    given: str
    suggested: str
    probability_given: float
    probability_suggested: float


@dataclass(frozen=True)
class Overlap:
    """Pictures with the same bytes in different splits or classes; labels and splits by picture."""

    paths: tuple[str, ...]
    labels: tuple[str, ...]
    splits: tuple[str, ...]


@dataclass(frozen=True)
class Shots:
    """What heads of so many pictures a class reach.

    Attributes:
        shots: pictures a class, or "all".
        mean: accuracy, averaged over the support sets. std: over them; None of a single one.
        ci95: 95% interval of the mean, as `method` says.
        seeds: support sets.
        mean_per_class: recall averaged over classes, then over support sets.
        method: how C was chosen, what was measured on, and the interval's name.
    """

    shots: int | str
    mean: float
    std: float | None
    ci95: tuple[float, float]
    seeds: int
    mean_per_class: float
    method: str


@dataclass(frozen=True)
class Difference:
    """This probe's accuracy minus another's on the pictures that both held out.

    Attributes:
        difference: -1 to 1. ci95: its 95% interval. p_value: two-sided, of none.
        method: how both were computed. n: pictures.
    """

    difference: float
    ci95: tuple[float, float]
    p_value: float
    method: str
    n: int


@dataclass(frozen=True)
class Tta:
    """An estimate, or a depth, with random crops beside the plain view, on the same pictures.

    Attributes:
        how: the probabilities of all views were put together: "mean" or "max".
        crops: beside the plain view.
        accuracy, mean_per_class, log_loss: as in `Estimate`.
        gain: the accuracy minus that of the plain view alone, paired.
    """

    how: str
    crops: int
    accuracy: float
    mean_per_class: float
    log_loss: float | None
    gain: Difference


@dataclass(frozen=True)
class Comparison:
    """An earlier result, and the paired difference of this one to it."""

    cache: str
    result: str
    head: str
    accuracy: float
    difference: Difference


@dataclass(frozen=True)
class LayerScore:
    """The same head on the activations of one cut.

    Attributes:
        cut: its name; width: numbers a picture. views: of a picture, that its head trained on.
        accuracy, ci95, mean_per_class, log_loss, best_C, gap, seconds: as in `ProbeResult`.
        difference: to the penultimate feature, paired; None for that one.
    """

    cut: str
    width: int
    accuracy: float
    ci95: tuple[float, float]
    mean_per_class: float
    log_loss: float | None
    best_C: float | None  # noqa: N815 - the field's name
    gap: float | None
    seconds: float
    difference: Difference | None
    views: int = 1


@dataclass(frozen=True)
class DepthScore:
    """The last `depth` units and the head, trained, on rows that were held out.

    Attributes:
        depth: units that train; 0 is the probe. cut: what is trained from: cached activations, or
            "pixels"; "scratch" where the whole network starts from random weights.
        accuracy, ci95, mean_per_class, log_loss: as in `Estimate`.
        train_accuracy: on the rows it was trained on; overfitting: how much higher that is.
        params_total, params_trainable, params_frozen: numbers in the network and its head.
        seconds: of training and scoring. bytes: of the cached activations.
        against_depth_0: paired; None for depth 0 itself. adjusted_p: its p_value adjusted for all
            depths of the sweep.
        rate: the learning rate of the topmost unit that was chosen, epochs: that were trained;
            None for depth 0, which is solved.
        tta: with random crops beside the plain view, on the same rows; None where not asked for.
    """

    depth: int
    cut: str
    accuracy: float
    ci95: tuple[float, float]
    train_accuracy: float
    params_total: int
    params_trainable: int
    params_frozen: int
    seconds: float
    mean_per_class: float
    log_loss: float | None
    bytes: int
    against_depth_0: Difference | None = None
    adjusted_p: float | None = None
    rate: float | None = None
    epochs: int | None = None
    tta: Tta | None = None
    overfitting: float = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "overfitting", self.train_accuracy - self.accuracy)


@dataclass(frozen=True)
class DataSize:
    """The same sweep, trained on a part of the pictures and judged on the same held-out ones.

    Attributes:
        n_train: pictures it was trained on; scores: by depth, shallowest first.
        recommended_depth: None where undecided. advice: why, in a sentence.
    """

    n_train: int
    scores: tuple[DepthScore, ...]
    recommended_depth: int | None
    advice: str


@dataclass(frozen=True)
class HeadScore:
    """A head on rows that were held out.

    Attributes:
        accuracy, ci95, mean_per_class, log_loss: as in `Estimate`.
        train_accuracy: on the rows it was trained on; overfitting: how much higher that is.
        params: numbers in the head. seconds: of fitting and scoring.
    """

    accuracy: float
    ci95: tuple[float, float]
    mean_per_class: float
    log_loss: float | None
    train_accuracy: float
    params: int
    seconds: float
    overfitting: float = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "overfitting", self.train_accuracy - self.accuracy)


@dataclass(frozen=True)
class MlpScore:
    """An MLP head beside the linear head, on the same pictures.

    Attributes:
        hidden: units. dropout: share of them that was left out at each step.
        rate: the learning rate that was chosen, epochs: that were trained; of the first training.
        score: of the MLP head. linear: of the linear one.
        difference: the MLP head's accuracy minus the linear one's, paired.
    """

    hidden: int
    dropout: float
    rate: float | None
    epochs: int | None
    score: HeadScore
    linear: HeadScore
    difference: Difference
