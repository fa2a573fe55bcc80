"""A torchvision classification network, cut open where its pyramid levels end."""

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn
from torchvision.models import get_model, list_models
from torchvision.models.feature_extraction import create_feature_extractor
from torchvision.ops import FrozenBatchNorm2d

from detkit.errors import ConfigError

_PROBE_SIDE = 128
"""Pixels; divides by every stride that a backbone may have."""


@dataclass(frozen=True)
class Tap:
    """Where a backbone gives one pyramid level."""

    node: str
    """Name of the module whose output is taken."""
    level: int
    """The output's stride is ``2**level``."""
    channels: int


def build_body(
    name: str,
    levels: Sequence[int],
    *,
    nodes: Sequence[str] | None = None,
    frozen_batch_norm: bool = False,
    frozen_stem: bool = False,
) -> tuple[nn.Module, list[Tap]]:
    """Build a freshly initialised backbone that returns one feature map per level.

    A level is tapped after its last stage. A closing 1x1 convolution that only widens the features for the
    classifier (MobileNet, EfficientNet, ShuffleNet) is left out, as is everything else that no tap needs.
    Parameters keep their torchvision names.

    Args:
        name: of a torchvision classification network.
        levels: level l has stride ``2**l``.
        nodes: module names, one per level; None finds them.
        frozen_batch_norm: batch norm uses its stored statistics, and neither these nor its weights train.
        frozen_stem: the parameters of everything before the first tapped module do not train.

    Returns:
        A module that maps images [N, 3, H, W] to a dict from the level, as text, to features
        [N, channels, H / 2**level, W / 2**level], and its taps.

    Raises:
        ConfigError: there is no such network or module, or it does not give these strides.
    """
    network = _build_network(name)
    if frozen_batch_norm:
        freeze_batch_norm(network)
    probe = _Probe(name, network)
    if nodes is None:
        nodes = [probe.last_stage(level) for level in levels]
    taps = [probe.tap(node, level) for node, level in zip(nodes, levels, strict=True)]
    if frozen_stem:
        nn.ModuleList(probe.before(taps[0].node)).requires_grad_(False)
    return _cut(network, taps), taps


def _cut(network: nn.Module, taps: Sequence[Tap]) -> nn.Module:
    """What the taps need of a network, returning their features by level."""
    returned = {tap.node: str(tap.level) for tap in taps}
    # Tracing must stop at our own layer as it does at torchvision's.
    tracing = {"leaf_modules": [FrozenBatchNorm]}
    return create_feature_extractor(network, returned, tracer_kwargs=tracing, suppress_diff_warning=True)


class FrozenBatchNorm(FrozenBatchNorm2d):
    """torchvision's, in one op that keeps the type of its input.

    Under autocast torchvision's gives float32, and with it all sums and activations of a residual network.
    """

    def forward(self, x: Tensor) -> Tensor:
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)


def freeze_batch_norm(module: nn.Module, layer: type[FrozenBatchNorm2d] = FrozenBatchNorm) -> None:
    """Put a frozen ``layer`` with the same weights and statistics in the place of every batch norm in ``module``."""
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            frozen = layer(child.num_features, eps=child.eps).to(child.weight)
            frozen.load_state_dict(child.state_dict(), strict=False)
            setattr(module, name, frozen)
        else:
            freeze_batch_norm(child, layer)


def _build_network(name: str) -> nn.Module:
    known = list_models(module=torchvision.models)
    if name not in known:
        raise ConfigError(
            f"model.backbone: torchvision has no classification network {name!r}{_suggest(name, known)}; "
            "torchvision.models.list_models() names them all"
        )
    return get_model(name, weights=None)


class _Probe:
    """What every module of a network puts out, found without computing it."""

    def __init__(self, name: str, network: nn.Module) -> None:
        self.name = name
        self.modules = dict(network.named_modules())
        self.shapes: dict[str, torch.Size] = {}
        """Shape of each module's output, in the order in which they are computed."""
        hooks = [module.register_forward_hook(self._recorder(key)) for key, module in self.modules.items()]
        training = network.training
        # Tensors on the meta device have a shape and no values: this costs neither time nor memory.
        state = {key: value.to("meta") for key, value in network.state_dict().items()}
        image = torch.empty(1, 3, _PROBE_SIDE, _PROBE_SIDE, device="meta")
        try:
            torch.func.functional_call(network.eval(), state, image)
        except (RuntimeError, AssertionError, ValueError) as error:
            raise ConfigError(
                f"model.backbone: {name} does not take images of any size ({error}), so it gives no pyramid; "
                "use a convolutional network such as resnet50"
            ) from None
        finally:
            network.train(training)
            for hook in hooks:
                hook.remove()

    def _recorder(self, name: str) -> Callable[[nn.Module, tuple, object], None]:
        def record(module: nn.Module, inputs: tuple, output: object) -> None:
            if isinstance(output, Tensor) and output.dim() == 4:
                self.shapes.pop(name, None)
                self.shapes[name] = output.shape

        return record

    def stride(self, name: str) -> int | None:
        """Pixels per cell of a module's output, or None where it is no exact share of the image."""
        height, width = self.shapes[name][-2:]
        return _PROBE_SIDE // height if height == width and _PROBE_SIDE % height == 0 else None

    def last_stage(self, level: int) -> str:
        """Name of the last stage with stride ``2**level``."""
        stages = [name for name in self._stages() if self.stride(name) == 2**level]
        if not stages:
            strides = {self.stride(name) for name in self._stages()} - {None, 1, _PROBE_SIDE}
            raise ConfigError(
                f"model.backbone: {self.name} has no stage of stride {2**level}, which level {level} needs; "
                f"found strides {sorted(filter(None, strides)) or 'none'}; "
                "choose other levels or another backbone"
            )
        spatial = [i for i, name in enumerate(stages) if self._kernel(name) > 1]
        last = spatial[-1] if spatial else 0
        while last + 1 < len(stages) and self._kernel(stages[last + 1]) == 0:
            last += 1  # a norm or an activation still belongs to the convolution before it
        return stages[last]

    def tap(self, node: str, level: int) -> Tap:
        """The tap at a named module, checked."""
        if node not in self.shapes:
            raise ConfigError(
                f"model.nodes: {self.name} has no module {node!r} that puts out features"
                f"{_suggest(node, list(self.shapes))}"
            )
        if self.stride(node) != 2**level:
            raise ConfigError(
                f"model.nodes: {node} of {self.name} has stride {self.stride(node)}, but level {level} needs "
                f"{2**level}; name one module per level, finest first"
            )
        return Tap(node, level, self.shapes[node][1])

    def before(self, node: str) -> list[nn.Module]:
        """The modules that are done when a named one begins."""
        done = list(self.shapes)[: list(self.shapes).index(node)]
        return [self.modules[name] for name in done if not name.startswith(f"{node}.")]

    def _stages(self) -> list[str]:
        """Modules of the two upper floors that work at one stride throughout, each as large as possible."""
        stages: list[str] = []
        for name in self.shapes:
            children = [f"{name}.{child}" for child, _ in self.modules[name].named_children()]
            strides = {self.stride(child) for child in children if child in self.shapes}
            if name and name.count(".") <= 1 and strides <= {self.stride(name)}:
                stages = [stage for stage in stages if not stage.startswith(f"{name}.")]
                stages.append(name)
        return stages

    def _kernel(self, name: str) -> int:
        """Side of the largest convolution inside a module; 0 without any."""
        convolutions = [m for m in self.modules[name].modules() if isinstance(m, nn.Conv2d)]
        return max((max(convolution.kernel_size) for convolution in convolutions), default=0)


def _suggest(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known, n=3)
    return f"; did you mean {' or '.join(close)}?" if close else ""
