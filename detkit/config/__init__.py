"""The schema of an experiment: one complete, flat YAML file, checked whole before anything runs.

Only the tools and ``detkit.builders`` read a configuration; everything else receives plain arguments. Every key
has a range, an unknown key is refused, and all mistakes are reported at once with their full names.
"""

from detkit.config.comparison import ComparedArm, ComparisonConfig
from detkit.config.experiment import Config
from detkit.config.gate import Gate
from detkit.config.negatives import Selection
from detkit.config.reading import (
    DATA_ROOT_VARIABLE,
    dump_config,
    load_comparison,
    load_config,
    load_gate,
    load_search,
    parse_config,
    read_tree,
    set_key,
    with_data_root,
)
from detkit.config.search import Choices, Interval, Pruning, SearchConfig
from detkit.config.sections import Evaluation, Split
from detkit.config.values import Metric

__all__ = [
    "DATA_ROOT_VARIABLE",
    "Choices",
    "ComparedArm",
    "ComparisonConfig",
    "Config",
    "Evaluation",
    "Gate",
    "Interval",
    "Metric",
    "Pruning",
    "SearchConfig",
    "Selection",
    "Split",
    "dump_config",
    "load_comparison",
    "load_config",
    "load_gate",
    "load_search",
    "parse_config",
    "read_tree",
    "set_key",
    "with_data_root",
]
