"""One public function a command: a frozen request in, a record out.

    requests       what can be asked
    extracting     extract
    probes         probe
    predicting     predict, list_backbones
    caches         info, verify, prune
    demonstration  demo

Every function takes either its request or the request's fields:
`extract("pets/", backbone="resnet50")` is `extract(ExtractRequest("pets/", backbone="resnet50"))`.
"""

from featcache.api.caches import info, prune, verify
from featcache.api.demonstration import demo
from featcache.api.extracting import extract
from featcache.api.predicting import list_backbones, predict
from featcache.api.probes import probe
from featcache.api.requests import ExtractRequest, PredictRequest, ProbeRequest, Progress

__all__ = [
    "ExtractRequest",
    "PredictRequest",
    "ProbeRequest",
    "Progress",
    "demo",
    "extract",
    "info",
    "list_backbones",
    "predict",
    "probe",
    "prune",
    "verify",
]
