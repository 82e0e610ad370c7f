"""Origins of LPIPS and ST-LPIPS.

ST-LPIPS is compared as it is, with the weights that its authors' package carries. The image classifiers that LPIPS looks
through have to be downloaded; here both sides have the same random one, and the published weights of the channels, so that
what is compared is the network and all that is done with it. These values are not LPIPS; no golden values are made of them.
"""

from __future__ import annotations

import sys
from functools import partial
from types import ModuleType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from evfi.evaluation.metrics.lpips_network import ALEX, VGG, Backbone, PerceptualDistance
from metric_origins import Origin, PairFunction, as_tensor

_SEED = 0


def _pair_function(distance: nn.Module) -> PairFunction:
    def function(picture: NDArray[np.uint8], truth: NDArray[np.uint8]) -> float:
        found = distance(as_tensor(picture) * 2 - 1, as_tensor(truth) * 2 - 1)
        return float(found[0] if isinstance(found, tuple) else found)

    return function


def _stlpips() -> PairFunction:
    for name, used in (("torchsummary", "summary"), ("IPython", "embed")):  # imported there, and not needed
        try:
            __import__(name)
        except ImportError:
            stub = ModuleType(name)
            setattr(stub, used, None)
            sys.modules[name] = stub
    from stlpips_pytorch import stlpips

    return _pair_function(stlpips.LPIPS(net="alex", variant="shift_tolerant", verbose=False))


def _lpips(net: str) -> nn.Module:
    import lpips

    return _seeded(lpips.LPIPS, net=net, pnet_rand=True, verbose=False)


def _torchmetrics(net: str) -> nn.Module:
    from torchmetrics.functional.image.lpips import _LPIPS  # the public class downloads

    return _seeded(_LPIPS, net=net, pnet_rand=True)


def _seeded(build: Any, **settings: Any) -> nn.Module:
    torch.manual_seed(_SEED)
    network: nn.Module = build(**settings)
    return network.eval()


def _ours(build: Any, net: str, backbone: Backbone) -> PairFunction:
    weights = build(net).state_dict()
    return _pair_function(PerceptualDistance(backbone).load_published(weights, weights))


def _random_origin(net: str, library: str, build: Any, backbone: Backbone, tolerance: float) -> Origin:
    return Origin(
        f"lpips_{net}",
        f"{library}, both with the same random classifier",
        library,
        lambda: _pair_function(build(net)),
        tolerance,
        ours=partial(_ours, build, net, backbone),
    )


ORIGINS = (
    Origin("stlpips_alex", "stlpips_pytorch, alex shift_tolerant", "stlpips-pytorch", _stlpips, 1e-6),
    _random_origin("alex", "lpips", _lpips, ALEX, 1e-6),
    _random_origin("vgg", "lpips", _lpips, VGG, 1e-6),
    _random_origin("alex", "torchmetrics", _torchmetrics, ALEX, 1e-6),
    _random_origin("vgg", "torchmetrics", _torchmetrics, VGG, 1e-6),
)
