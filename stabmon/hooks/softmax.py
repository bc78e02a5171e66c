"""The observer of stabmon's own softmax attention, in the slot that sigmoid attention has too."""

from torch import Tensor

from stabmon.hooks.forward import SigmoidObserver
from stabmon.kernels import AuxRequest, observe
from stabmon.stats.measured import spread, with_output
from stabmon.stats.softmax_rows import row_statistics


class SoftmaxObserver(SigmoidObserver):
    """Sits in the observer slot while a ``SoftmaxAttention`` runs; no kernel computes its statistics."""

    def request(self, query: Tensor, key: Tensor) -> AuxRequest | None:
        """Request nothing."""
        return None

    def measure(self, call: observe.Call, request: AuxRequest) -> None:
        """Write the statistics of sampled rows: on the CPU of the sequences that take turns, on a GPU of all."""
        batch, _, queries, width = call.problem.query.shape
        read = slice(None)
        if call.problem.query.device.type == "cpu":
            read, request = self.recording.reading(batch)
        part = call.problem.sequences(read)
        statistics = with_output(call.output, row_statistics(part, request))
        writer = self.recording.writer
        writer.statistics(self.slots, statistics, spread(part.query, request), spread(part.key, request))
        writer.counts(self.slots, batch, queries * width, call.problem.key.size(2))
