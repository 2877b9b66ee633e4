"""Methods compared on pictures: ``gpgan evaluate`` as functions.

:func:`evaluate` blends items by several methods, measures the results (:mod:`gpgan.metrics`) and writes a folder with
the results as PNG, tables as text, CSV and JSON, and one self-contained page to look through. Items come from a CSV
file, from folders, or are drawn from the frames of fixed cameras (:func:`find_items`); methods go by their names
(:func:`method_names`), and :func:`register` makes any function one. Needs ``pip install 'gpgan[evaluate]'``.

>>> def darker(source, target, mask):
...     return target // 2
>>> gpgan.evaluation.register("darker", darker)                                    # doctest: +SKIP
>>> methods = [*gpgan.evaluation.default_methods(), "darker", "inset3=gpgan:inset=3"]    # doctest: +SKIP
>>> results = gpgan.evaluation.evaluate("pairs.csv", "run", methods=methods)       # doctest: +SKIP
>>> results.summary["gpgan"]["metrics"]["psnr"]["mean"]                            # doctest: +SKIP
"""

from gpgan.evaluation.items import Inputs, Item, draw_pairs, find_items, read_csv, read_item
from gpgan.evaluation.methods import Method, default_methods, method, method_names, parse_method, register
from gpgan.evaluation.results import Results
from gpgan.evaluation.runner import evaluate

__all__ = [
    "Inputs",
    "Item",
    "Method",
    "Results",
    "default_methods",
    "draw_pairs",
    "evaluate",
    "find_items",
    "method",
    "method_names",
    "parse_method",
    "read_csv",
    "read_item",
    "register",
]
