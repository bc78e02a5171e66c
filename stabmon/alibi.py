"""ALiBi's slopes: by how much a head hides a key at each step of distance. No torch."""


def slopes(heads: int) -> list[float]:
    """Return the slope of each head: head h of a power of two has 2^(-8 (h + 1) / heads).

    Another number of heads takes the slopes of the power of two below it, then every second one of the power of two
    above.

    References:
        arXiv 2108.12409, section 3 and its note on other numbers of heads.
    """
    below = 1 << (heads.bit_length() - 1)
    return _geometric(below) + _geometric(2 * below)[::2][: heads - below]


def _geometric(heads: int) -> list[float]:
    return [2.0 ** (-8.0 * (head + 1) / heads) for head in range(heads)]
