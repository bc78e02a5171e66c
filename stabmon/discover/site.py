"""Attentions as a forward pass showed them: which module ran the call, and where its residual block can be read."""

from typing import NamedTuple

from torch import nn

from stabmon.discover.points import Point
from stabmon.records import Attention, ModelMap, NormInput


class Surroundings(NamedTuple):
    """The residual block around an attention.

    block: the module whose output is that of the block. stream: where the tensor is seen that the branch
    joins. branch: where the branch is seen as it is added. gain: the LayerScale on it. Each is None where there is
    none. branch_is_output: whether the branch is the attention's output, in whatever form.
    """

    block: nn.Module | None
    stream: Point | None
    branch: Point | None
    branch_is_output: bool
    gain: nn.Parameter | None


class Site(NamedTuple):
    """One attention of a pass with its modules; those of one module are in the order of its calls.

    root: the module that the pass went through.
    """

    attention: Attention
    root: nn.Module
    module: nn.Module
    surroundings: Surroundings


class Found(NamedTuple):
    """The outcome of a scan.

    sites: attentions in the order of the pass. notes: in words, what could not be read. keys: most keys of a call.
    small_norms: norms whose input was within their eps.
    """

    sites: tuple[Site, ...]
    notes: tuple[str, ...] = ()
    keys: int = 0
    small_norms: tuple[NormInput, ...] = ()

    def map_of(self, model: nn.Module) -> ModelMap:
        """Return the map of ``model``, in which these sites are."""
        trainable = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
        attentions = tuple(site.attention for site in self.sites)
        return ModelMap(attentions=attentions, parameters=trainable, small_norms=self.small_norms)
