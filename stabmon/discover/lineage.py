"""Descent of every tensor of one forward pass: its operations, seen one by one.

A residual addition is found by what it does: it adds what an attention gave to a tensor that the attention's queries
were made from. Norms and gains are found likewise, by their arithmetic and not by their names.
"""

from collections.abc import Callable, Iterator, MutableMapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakTensorKeyDictionary

from stabmon.discover.norms import NormInputs
from stabmon.discover.structure import is_in

_PRODUCTS = ("mm", "addmm", "bmm", "baddbmm", "linear", "convolution", "mkldnn", "mv", "addmv", "conv", "_int_mm")
_NORMS = {"native_layer_norm", "_fused_rms_norm", "rms_norm", "rsqrt", "linalg_vector_norm", "native_group_norm"}
_FORMS = {
    "_to_copy", "view", "_unsafe_view", "clone", "detach", "transpose", "permute", "t", "alias", "unsqueeze", "squeeze",
}  # fmt: skip
"""Operations whose output is their operand in another form, all of it and nothing else."""
_SAME = _FORMS | {"mul", "div", "expand", "native_dropout", "slice"}
"""Operations whose output is their first operand in another form or size."""
_WEIGHTS = {"_softmax": "softmax", "_safe_softmax": "softmax", "softmax": "softmax", "sigmoid": "sigmoid"}


@dataclass(slots=True)
class Mark:
    """The descent of one tensor.

    number: its place in the order in which tensors came up. ancestors: bit mask of the numbers it was made from, its
    own included. products: matrix products on the longest way to it. root: the number of the tensor that it is another
    form or a multiple of. whole: that of the tensor that it is another form of. calls: attentions whose branch it is a
    part of.
    """

    number: int
    ancestors: int
    products: int
    root: int
    whole: int
    calls: frozenset[int] = frozenset()


@dataclass(slots=True)
class Residual:
    """The addition that an attention's branch joins the residual stream in.

    is_output: whether the branch is the attention's output, in whatever form.
    """

    stream: Tensor
    branch: Tensor
    is_output: bool
    hybrid_norm: bool
    gain: nn.Parameter | None


class _Step(NamedTuple):
    """An operation: the matrix products before it, and the path of the module that ran it."""

    products: int
    inside: str


@dataclass(slots=True)
class _Open:
    """An attention whose branch has not joined a stream yet."""

    query: Mark
    output: Mark
    module: str
    branch: Tensor | None = None


@dataclass(slots=True)
class WrittenOut:
    """Weights that a module computes itself, from logits to softmax or sigmoid, in the operations seen."""

    module: str
    kind: str
    shape: tuple[int, ...]


def _held(tensor: Tensor) -> Tensor:
    """Return the tensor that a DTensor, or one that a collective still writes, holds here."""
    while True:
        inner = getattr(tensor, "_local_tensor", None)
        inner = getattr(tensor, "elem", None) if inner is None else inner
        if not isinstance(inner, Tensor):
            return tensor
        tensor = inner


class Lineage(TorchDispatchMode):
    """Sees every operation while it is active; what it keeps does not grow with the activations.

    inside: returns the path of the module that runs.
    joined: called with the number of a call and its residual addition.
    """

    supports_higher_order_operators = True

    def __init__(self, inside: Callable[[], str], joined: Callable[[int, Residual], None]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.written_out: list[WrittenOut] = []
        self.failure: Exception | None = None
        self.quiet = 0
        """More than 0 while known attention runs: the weights that it computes are not ``written_out``."""
        self._inside, self._joined = inside, joined
        self.norms: NormInputs | None = NormInputs(inside)
        """Inputs of norms; None once an operation of theirs could not be read."""
        self._marks: MutableMapping[Tensor, Mark] = WeakTensorKeyDictionary()
        self._count = 0
        self._open: dict[int, _Open] = {}
        self._norms: dict[int, _Step] = {}
        """Tensors that a norm made, by number."""
        self._gains: dict[int, tuple[_Step, nn.Parameter]] = {}
        """Tensors that were multiplied with a parameter, by number."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run ``func`` and note what came out of what."""
        out = func(*args, **(kwargs or {}))
        if self.failure is None:
            try:
                name = str(getattr(func, "overloadpacket", func)).rpartition(".")[2]
                self._note(name, args, kwargs or {}, out)
                self._note_norm(name, args, out)
            except Exception as error:  # an operation of a kind nobody foresaw costs the structure, not the pass
                self.failure = error
        return out

    def _note_norm(self, name: str, args: Any, out: Any) -> None:
        if self.norms is not None:
            try:
                self.norms.note(name, args, out)
            except Exception:  # a norm of a kind nobody foresaw costs these numbers alone
                self.norms = None

    def begin(self, call: int, query: Tensor, output: Tensor, module: str) -> None:
        """Note that ``call``, within the module at path ``module``, made ``output`` for ``query``."""
        mark = self._mark(query)
        given = self._mark(output)
        self._open[call] = _Open(mark, given, module)
        given.calls = frozenset({call})
        given.ancestors |= mark.ancestors

    def has_qk_norm(self, query: Tensor) -> bool:
        """Return whether a norm comes between the last matrix product and ``query``."""
        return self._normed(self._mark(query))

    def _note(self, name: str, args: Any, kwargs: Any, out: Any) -> None:
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        marks = [self._mark(tensor) for tensor in given if not isinstance(tensor, nn.Parameter)]
        made = [leaf for leaf in tree_leaves(out) if isinstance(leaf, Tensor)]
        ancestors, calls, products = 0, frozenset[int](), 0
        for mark in marks:
            ancestors |= mark.ancestors
            calls |= mark.calls
            products = max(products, mark.products)
        products += name in _PRODUCTS
        if calls and name in ("add", "add_"):
            calls = self._add(args, kwargs, calls)
        for tensor in made:
            mark = self._mark(tensor)
            mark.ancestors |= ancestors
            mark.products, mark.calls = products, calls
            if name in _SAME and len(marks) == 1:
                mark.root = marks[0].root
                mark.whole = marks[0].whole if name in _FORMS else mark.whole
            if name in _NORMS:
                self._norms[mark.number] = _Step(products, self._inside())
            self._note_gain(name, given, mark)
        self._note_weights(name, made)

    def _note_gain(self, name: str, given: list[Tensor], mark: Mark) -> None:
        gain = next((one for one in given if isinstance(one, nn.Parameter)), None)
        if name in ("mul", "mul_") and gain is not None:
            self._gains[mark.number] = (_Step(mark.products, self._inside()), gain)

    def _note_weights(self, name: str, made: list[Tensor]) -> None:
        if name in _WEIGHTS and not self.quiet and made and made[0].dim() >= 3 and self._mark(made[0]).products:
            self.written_out.append(WrittenOut(self._inside(), _WEIGHTS[name], tuple(made[0].shape)))

    def _add(self, args: Any, kwargs: Any, calls: frozenset[int]) -> frozenset[int]:
        """Return the calls whose branches go on in the sum; the others have joined their stream."""
        if len(args) < 2 or not all(isinstance(term, Tensor) for term in args[:2]) or args[0].shape != args[1].shape:
            return calls
        left, right = args[:2]
        going_on = set(calls)
        for call in calls:
            on_left, on_right = (call in self._mark(term).calls for term in (left, right))
            if on_left is on_right or call not in self._open:
                continue
            branch, other = (left, right) if on_left else (right, left)
            if self._take(call, branch, other):
                going_on.discard(call)
        return frozenset(going_on)

    def _take(self, call: int, branch: Tensor, other: Tensor) -> bool:
        """Return whether ``other`` is the residual stream of ``call``, which ``branch`` joins; then say so."""
        one = self._open[call]
        if isinstance(other, nn.Parameter):
            return False
        if not one.query.ancestors >> self._mark(other).root & 1:
            if one.branch is None and not is_in(self._inside(), one.module):
                one.branch = branch  # the sum of parallel branches
            return False
        added = branch if one.branch is None else one.branch
        del self._open[call]
        mark = self._mark(added)
        is_output = mark.whole == one.output.whole
        self._joined(call, Residual(other, added, is_output, self._normed(mark), self._gain(added)))
        return True

    def _normed(self, mark: Mark) -> bool:
        return any(True for _ in self._since_product(mark))

    def _since_product(self, mark: Mark) -> Iterator[str]:
        """Yield the path of the module of each norm between the last matrix product and the tensor of ``mark``."""
        for number, step in self._norms.items():
            if step.products == mark.products and mark.ancestors >> number & 1:
                yield step.inside

    def _gain(self, branch: Tensor) -> nn.Parameter | None:
        """Return the parameter that ``branch`` was multiplied with since the last matrix product, but no norm's own."""
        mark = self._mark(branch)
        norms = set(self._since_product(mark))
        for number, (step, gain) in reversed(self._gains.items()):
            if step.products == mark.products and mark.ancestors >> number & 1 and step.inside not in norms:
                return gain
        return None

    def _mark(self, tensor: Tensor) -> Mark:
        tensor = _held(tensor)
        mark = self._marks.get(tensor)
        if mark is None:
            mark = self._marks[tensor] = Mark(self._count, 1 << self._count, 0, self._count, self._count)
            self._count += 1
        return mark
