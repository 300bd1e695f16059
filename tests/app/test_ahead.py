"""What is imported before a page asks for it."""

import importlib

import ahead


def test_every_module_that_is_loaded_ahead_is_there():
    for name in ahead.MODULES:
        importlib.import_module(name)
