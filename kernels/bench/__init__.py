"""The benchmark: accuracy against float64, speed beside torch's softmax attention, cost of statistics, host time."""
