"""What can be asked of featcache: plain values, so a request can be kept and repeated."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields, is_dataclass
from typing import Any, Literal, TypeVar, get_args

from featcache.engines import PRECISIONS
from featcache.errors import (
    AugmentationError,
    BackboneError,
    ClassifierError,
    EngineError,
    ProbeError,
    StoreError,
)
from featcache.heads.averaging import Averaging
from featcache.images.policies import tta_views, views_of
from featcache.recipe import (
    PENULTIMATE,
    PLAIN,
    Pooling,
    Precision,
    Preprocessing,
    StoredDtype,
    View,
)

Head = Literal["softmax", "logistic", "ridge", "knn", "mlp"]

PathLike = str | os.PathLike[str]

Progress = Callable[[str, int, int], None]
"""Called with (stage, done, total); stages: "hash", "extract", "derive", "fit", "predict",
"report", and "depth 1", "depth 2", ..."""


@dataclass(frozen=True)
class ExtractRequest:
    """What `extract` is asked.

    Attributes:
        data: folder of class folders, of train/val/test with class folders, CSV, or a name.
        backbone: a network's name, or `package.module:factory`; several for `extract_each`, as
            "resnet50,inception_v3".
        weights: None for the published ones, a file, "random" or "random:SEED".
        image_size: side in pixels instead of the published one.
        preprocessing: instead of the published one; itself, or a JSON file of its fields.
        out: the cache's folder, for `extract_each` the one that holds the caches; None puts
            `<data>-<backbone>` into `$FEATCACHE_DIR`, else `cache`.
        cuts: units whose activations are kept beside the penultimate feature, by the names that
            `layers` lists: "layer4.1" is the activation after it. "all" is every unit that can be
            pooled so.
        pooling: of the activations at those cuts: "avg" (mean over positions, without class and
            register tokens), "cls" (the class token), "flatten", or "none" (as they are).
        views: views of every picture not marked test: the plain one and augmented ones.
        augment: what makes the others: "flip", "standard", "randaugment:N,M" or "trivial"; None
            is "standard".
        augment_seed: of what they draw.
        tta: so many random crops of every picture, to be predicted beside the plain view.
        store_dtype: what rows are stored as; None takes float32, and float16 for activations that
            are not pooled ("flatten", "none").
        fast_decode: decode large JPEGs at a fraction of their size; gives other features, so it is
            part of the recipe.
        engine: "torch", "torch-compile", "openvino" (extra `cpu`), or "auto", which takes the one
            that is quickest in a short trial on these pictures.
        device: "auto" or a name.
        precision: of the arithmetic, part of the recipe: "fp32", "tf32" (CUDA), "bf16", "fp16",
            "int8" (OpenVINO and the extra `int8`; for probing, not for a classifier to keep).
        batch_size: rows a forward pass; None takes 32, or as many as there are to compute if
            fewer, or what an interrupted run began with.
        threads: threads, or processes, that decode, None for all cores; changes no value.
        shard_rows: rows a shard, None to let the plan decide; a crash costs at most one shard.
        strict: a picture that cannot be read is an error instead of a skip.
        verify_content: hash every file again, whatever its time stamps say.
        replace_source: let this data take the place of what the cache was made from.

    Raises:
        AugmentationError, BackboneError, EngineError, StoreError: a value that cannot be asked for.
    """

    data: PathLike
    backbone: str = "efficientnet_lite0"
    weights: PathLike | None = None
    image_size: int | None = None
    preprocessing: Preprocessing | PathLike | None = None
    out: PathLike | None = None
    cuts: tuple[str, ...] = ()
    pooling: Pooling = "avg"
    views: int = 1
    augment: str | None = None
    augment_seed: int = 0
    tta: int = 0
    store_dtype: StoredDtype | None = None
    fast_decode: bool = False
    engine: str = "auto"
    device: str = "auto"
    precision: Precision = "fp32"
    batch_size: int | None = None
    threads: int | None = None
    shard_rows: int | None = None
    strict: bool = False
    verify_content: bool = False
    replace_source: bool = False

    def __post_init__(self) -> None:
        for name in ("batch_size", "threads", "shard_rows"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise EngineError(f"{name} {value}: give at least 1, or leave it out")
        _ = self.all_views  # refuses those that cannot be made
        cuts = (self.cuts,) if isinstance(self.cuts, str) else tuple(self.cuts)
        object.__setattr__(self, "cuts", cuts)
        if self.pooling not in get_args(Pooling):
            raise BackboneError(
                f"pooling {self.pooling!r}: unknown; give avg, cls, flatten or none"
            )
        if self.precision not in PRECISIONS:
            known = ", ".join(PRECISIONS)
            raise EngineError(f"precision {self.precision!r}: unknown; give {known}")
        if self.store_dtype is not None and self.store_dtype not in get_args(StoredDtype):
            known = " or ".join(get_args(StoredDtype))
            raise StoreError(f"store_dtype {self.store_dtype!r}: unknown; give {known}")

    @property
    def all_views(self) -> tuple[View, ...]:
        """The plain view, the augmented ones, and those that are predicted."""
        if self.views == 1 and self.augment not in (None, PLAIN):
            raise AugmentationError(
                f"augment {self.augment!r} with 1 view, which is the plain picture: give views 2 "
                "or more, or leave augment out"
            )
        policy = self.augment or (PLAIN if self.views == 1 else "standard")
        crops = tta_views(self.tta, self.augment_seed)
        return (*views_of(policy, self.views, self.augment_seed), *crops)


@dataclass(frozen=True)
class TrainingOptions:
    """How `probe` trains deeper layers, where `unfreeze` asks for some, or an MLP head.

    Attributes:
        epochs: over all pictures, at most; the best weights are kept. None: 12, of an MLP head 30.
        rates: base learning rates; of several, the pictures that stop a training choose. None
            given: 1e-3, of an MLP head 3e-4, 1e-3 and 3e-3.
        optimizer: "adamw" or "sgd"; schedule: "cosine" or "one-cycle".
        batch_size: pictures a step.
        unit_decay: rate of a unit over that of the unit above it.
        head_factor: rate of the head over the base; None: 1 where it starts solved, else 10.
        weight_decay: not of biases and norms. clip: norm of the gradients; None leaves them.
        mixup, cutmix: their alphas, of activations, or of the pixels of `live`; 0 is none.
        label_smoothing: of trainings.
        patience: epochs without gain after which it stops; None: never.
        seeds: trainings of each depth; of one, the advice knows no variance of training.
        held_out: share that is held out where nothing is split and no folds are asked for.
        solved_start: start from the solved head (LP-FT), else from an untrained one.
        progressive: start each depth from the shallower one.
        batchnorm_moves: BatchNorm of unfrozen units moves its statistics.
        data_sizes: repeat the sweep on so many training pictures; None stands for all.
        live: train from pixels at every depth, with fresh views in each epoch, by the request's
            `augment` ("standard" unless given) and `augment_seed`.
        image_sizes: (side in pixels, epochs) in turn, instead of `epochs`, where pixels train; the
            last side is the cache's, at which everything is judged.
        compare_scratch: train the whole network from random weights too.
    """

    epochs: int | None = None
    rates: tuple[float, ...] = ()
    optimizer: Literal["adamw", "sgd"] = "adamw"
    schedule: Literal["cosine", "one-cycle"] = "cosine"
    batch_size: int = 32
    unit_decay: float = 0.7
    head_factor: float | None = None
    weight_decay: float = 0.01
    clip: float | None = 1.0
    mixup: float = 0.0
    cutmix: float = 0.0
    label_smoothing: float = 0.0
    patience: int | None = None
    seeds: int = 1
    held_out: float = 0.3
    solved_start: bool = True
    progressive: bool = True
    batchnorm_moves: bool = False
    data_sizes: tuple[int | None, ...] = ()
    live: bool = False
    image_sizes: tuple[tuple[int, int], ...] = ()
    compare_scratch: bool = False


@dataclass(frozen=True)
class ProbeRequest:
    """What `probe` is asked.

    Attributes:
        cache: folder of a cache, or what `extract` returned.
        head: "softmax"; "logistic" (one-vs-rest; several labels a picture); "ridge" and "knn",
            which are quick and not saved; "mlp", new hidden units trained beside the linear head.
        hidden: units of an MLP head, None: 256. dropout: share of them left out at each step, None:
            0.25.
        protocol: whose rules to follow; see docs/protocols.md.
        cut: the activations to probe; "all" adds a table of every cached cut with vectors.
        views: how many views of a picture train, the plain one included; None: all there are.
        augment, augment_seed: of the others, where the cache has those of several; where `training`
            is live, of the views that are made for it.
        tta: "mean" or "max" also predicts from the crops that `extract` made with `tta`, and says
            what that gains; for `unfreeze` at every depth, whose activations of the crops are made
            where they are missing.
        shots: pictures a class of few-shot heads; None stands for all of them.
        seeds: support sets for each number of shots.
        suspects: how many likely label errors to list.
        against: a cache (its last result), or `CACHE:RESULT`, to be compared with on the pictures
            that both held out.
        init_from_source: by class, the number of a class of the source network's own classifier
            whose row the head starts from (it is drawn to it, and at one shot is it).
        unfreeze: also trains deeper layers: depths ("0-3", "0,1,4"), units by name, or both.
        training: how. margin: accuracy one gives away for a shallower depth, in the advice.
        folds: outer folds where there is no test split; None takes 5, and for `unfreeze` a single
            hold-out.
        seed: of the folds.
        standardize: scale columns to unit variance, by training rows only.
        tolerance: on the certified gap of every fit.
        class_weight: "balanced" gives every class the same weight in all; None, every picture.
        label_smoothing: share of every target that is given to all classes alike.
        memory: bytes for the solver to stay within, about.
        device: of the solver's products, as torch names it.
        save: file of the classifier to be saved.
        embed_backbone: put the backbone's weights into that file too.
        backbone: `package.module:factory`, to vouch for the code of a network of one's own.
        trust: do not hash the shards before reading them.

    Raises:
        ProbeError: a value that cannot be asked for.
    """

    cache: PathLike
    head: Head = "softmax"
    hidden: int | None = None
    dropout: float | None = None
    protocol: str = "default"
    cut: str = PENULTIMATE
    views: int | None = None
    augment: str | None = None
    augment_seed: int | None = None
    tta: Averaging | None = None
    shots: tuple[int | None, ...] = ()
    seeds: int = 10
    suspects: int = 0
    against: PathLike | None = None
    init_from_source: Mapping[str, int] = field(default_factory=dict[str, int])
    unfreeze: str | None = None
    training: TrainingOptions = field(default_factory=TrainingOptions)
    margin: float = 0.01
    folds: int | None = None
    seed: int = 0
    standardize: bool = False
    tolerance: float = 1e-3
    class_weight: Literal["balanced"] | None = None
    label_smoothing: float = 0.0
    memory: int = 2 << 30
    device: str = "cpu"
    save: PathLike | None = None
    embed_backbone: bool = False
    backbone: str | None = None
    trust: bool = False

    def __post_init__(self) -> None:
        if self.head not in get_args(Head):
            known = ", ".join(get_args(Head))
            raise ProbeError(f"head {self.head!r}: unknown; give one of {known}")
        if any(k is not None and k < 1 for k in self.shots):
            raise ProbeError(f"shots {self.shots}: give numbers from 1, or None for all")
        _refuse_averaging(self.tta, ProbeError)
        if self.views is not None and self.views < 1:
            raise ProbeError(f"views {self.views}: give at least 1, the plain view")
        if self.seeds < 1 or self.suspects < 0:
            raise ProbeError(
                f"seeds {self.seeds}, suspects {self.suspects}: give at least 1 and at least 0"
            )


_NOT_KEPT = ("cache", "memory", "device", "save", "embed_backbone", "trust")
"""Fields that change no number of a probe, or not what is found but where it goes."""


def options_given(request: ProbeRequest) -> dict[str, Any]:
    """The fields of a request that are not as they are unless given, as JSON's own types."""
    given = _given(request)
    return {name: value for name, value in given.items() if name not in _NOT_KEPT}


def _given(request: Any) -> dict[str, Any]:
    values = {f.name: (getattr(request, f.name), _unless_given(f)) for f in fields(request)}
    return {k: _as_json(value) for k, (value, default) in values.items() if value != default}


def _unless_given(f: Field[Any]) -> Any:
    return f.default if f.default_factory is MISSING else f.default_factory()


def _as_json(value: Any) -> Any:
    if is_dataclass(value):
        return _given(value)
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, Mapping):
        return dict(value)
    return [_as_json(item) for item in value] if isinstance(value, tuple) else value


@dataclass(frozen=True)
class CompareRequest:
    """What `compare` is asked.

    Attributes:
        caches: folders of caches, or what `extract` returned; two at least, of the same pictures.
        head: "softmax", or "logistic" (one-vs-rest; several labels a picture).
        depth: units of each network that train; 0 is the head alone.
        margin: accuracy one gives away for a cheaper backbone, in the advice.
        folds: outer folds where there is no test split; None takes 5, and above depth 0 a single
            hold-out.
        seed, standardize, tolerance, class_weight, label_smoothing, memory, device: as in
            `ProbeRequest`.
        training: how deeper units train.
        backbones: each `package.module:factory` whose code is vouched for.
        trust: do not hash the shards before reading them.

    Raises:
        ProbeError: a value that cannot be asked for.
    """

    caches: tuple[PathLike, ...]
    head: Literal["softmax", "logistic"] = "softmax"
    depth: int = 0
    margin: float = 0.01
    folds: int | None = None
    seed: int = 0
    standardize: bool = False
    tolerance: float = 1e-3
    class_weight: Literal["balanced"] | None = None
    label_smoothing: float = 0.0
    memory: int = 2 << 30
    device: str = "cpu"
    training: TrainingOptions = field(default_factory=TrainingOptions)
    backbones: tuple[str, ...] = ()
    trust: bool = False

    def __post_init__(self) -> None:
        if self.head not in ("softmax", "logistic"):
            raise ProbeError(f"head {self.head!r}: compare by softmax or logistic")
        if self.depth < 0:
            raise ProbeError(f"depth {self.depth}: give 0, the head alone, or more")
        if not 0 < self.margin < 1:
            raise ProbeError(f"margin {self.margin}: give a number between 0 and 1")

    def probing(self, cache: PathLike, backbone: str | None) -> ProbeRequest:
        """What is asked of one cache."""
        return ProbeRequest(
            cache,
            head=self.head,
            views=1,
            unfreeze=str(self.depth) if self.depth else None,
            training=self.training,
            margin=self.margin,
            folds=self.folds,
            seed=self.seed,
            standardize=self.standardize,
            tolerance=self.tolerance,
            class_weight=self.class_weight,
            label_smoothing=self.label_smoothing,
            memory=self.memory,
            device=self.device,
            backbone=backbone,
            trust=self.trust,
        )


@dataclass(frozen=True)
class PredictRequest:
    """What `predict` is asked.

    Attributes:
        classifier: a .fc file.
        pictures: files, folders and patterns.
        top: how many of the likeliest classes to list.
        tta: so many random crops of each picture are predicted beside it.
        tta_by: what puts their probabilities together, "mean" or "max".
        tta_seed: of the crops; with the `augment_seed` of an `extract` they are the same as there.
        min_probability: below it no label is given (one label), or a label is not listed
            (several labels; 0.5 unless given).
        engine, device: "auto" or a name.
        backbone: `package.module:factory`, to vouch for the code of a network of one's own.
        weights: a file of the backbone's weights, where the one the classifier names is gone.

    Raises:
        AugmentationError, ClassifierError: a value that cannot be asked for.
    """

    classifier: PathLike
    pictures: tuple[PathLike, ...]
    top: int = 3
    tta: int = 0
    tta_by: Averaging = "mean"
    tta_seed: int = 0
    min_probability: float | None = None
    engine: str = "auto"
    device: str = "auto"
    backbone: str | None = None
    weights: PathLike | None = None

    def __post_init__(self) -> None:
        if self.top < 1:
            raise ClassifierError(f"top {self.top}: give how many classes to list, at least 1")
        _refuse_averaging(self.tta_by, ClassifierError)
        _ = self.crops  # refuses those that cannot be made
        least = self.min_probability
        if least is not None and not 0 <= least <= 1:
            raise ClassifierError(f"min_probability {least}: give a number from 0 to 1")

    @property
    def crops(self) -> tuple[View, ...]:
        """The views that are predicted beside the plain one."""
        return tta_views(self.tta, self.tta_seed)


def _refuse_averaging(how: str | None, error: type[ProbeError] | type[ClassifierError]) -> None:
    if how is not None and how not in get_args(Averaging):
        raise error(f"tta {how!r}: unknown; give {' or '.join(get_args(Averaging))}")


Request = TypeVar("Request", CompareRequest, ExtractRequest, ProbeRequest, PredictRequest)


def as_request(
    kind: type[Request], given: Request | Any, options: Mapping[str, Any], *more: Any
) -> Request:
    """The request itself, or one made of its fields.

    Args:
        kind: class of the request.
        given: the request, or the value of its first field.
        options: further fields by name.
        *more: values of the fields after the first.

    Raises:
        TypeError: a request with fields beside it, which would be ignored.
    """
    if not isinstance(given, kind):
        return kind(given, *more, **options)
    if options or any(more):
        raise TypeError(
            f"a {kind.__name__} is complete; change its fields with dataclasses.replace, not beside"
        )
    return given
